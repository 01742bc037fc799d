"""The page that shows a screen: whose it is, what is served with it, and what it learns about the guest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.api.subresources.conftest import Api, FakeKube
from tests.api.virtctl import Answer, Virtctl

from qvirt_api.subresources import page_files, preconditions
from qvirt_api.subresources.errors import StatusError
from qvirt_api.subresources.page_files import PageFiles
from qvirt_api.subresources.views import Instance

_OWN = Path(page_files.__file__).with_name("page")


async def get(user: Virtctl, rest: str = "") -> Answer:
    path = user.path("virtualmachineinstances", "vm", f"vnc/page{rest}")
    return await user.request("GET", path)


async def test_the_page_and_its_files(jane: Virtctl, cluster: FakeKube) -> None:
    page = await get(jane)
    assert (page.status, page.content_type) == (200, "text/html")
    names = re.findall(r'(?:src|href)="page/([^"]+)"', page.text)
    assert len(names) == 2
    for name in names:
        assert (await get(jane, f"/{name}")).status == 200, name
    (imported,) = re.findall(
        r"^import .* from '\./(.*)';", (await get(jane, "/screen.js")).text, re.M
    )
    library = await get(jane, f"/{imported}")
    assert (library.content_type, library.text) == ("text/javascript", "// core/rfb.js")
    asked = {(r["resourceAttributes"]["subresource"], r["user"]) for r in cluster.reviews}
    assert asked == {("vnc", "jane")}


@pytest.mark.parametrize(
    "name",
    [
        *("nothing.js", "novnc/app/ui.js", "novnc/core", "novnc/core/notes.txt"),
        *(
            "../screen_page.py",
            "..%2fscreen_page.py",
            "novnc/..%2f..%2fetc/passwd",
            "%2fetc/passwd",
        ),
    ],
)
async def test_there_is_nothing_else(name: str, jane: Virtctl) -> None:
    assert (await get(jane, f"/{name}")).status == 404


async def test_nothing_runs_that_is_not_ours_nor_in_a_frame(jane: Virtctl) -> None:
    url = jane.path("virtualmachineinstances", "vm", "vnc/page")
    session = jane._session
    assert session is not None
    for rest in ("", "/screen.js", "/state"):
        async with session.get(url + rest) as answer:
            headers = answer.headers
        policy = dict(
            part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_has_no_inline_script_or_style() -> None:
    page = (_OWN / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert "<style" not in page
    assert not re.search(r"\s(on\w+|style)=", page)


async def test_who_may_not_see_the_screen_has_no_page(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.denied = "no"
    for rest in ("", "/screen.js", "/state", "/novnc/core/rfb.js"):
        answer = await get(jane, rest)
        assert (answer.status, answer.text) == (401, "no")


async def test_without_novnc_there_is_no_page(jane: Virtctl, api: Api, tmp_path: Path) -> None:
    api.services.files = PageFiles(tmp_path / "gone")
    answer = await get(jane)
    assert (answer.status, "without noVNC" in answer.message) == (501, True)


async def test_state(jane: Virtctl, cluster: FakeKube) -> None:
    assert (await get(jane, "/state")).json() == {"waiting": True, "message": "it is not running"}
    cluster.vmi("Scheduling")
    starting = {"waiting": True, "message": "it is starting (phase Scheduling)"}
    assert (await get(jane, "/state")).json() == starting
    cluster.vmi()
    assert (await get(jane, "/state")).json() == {"ready": True}


@pytest.mark.parametrize("phase", ["", "Pending", "Scheduled", "Running", "Succeeded", "Failed"])
@pytest.mark.parametrize("devices", [{}, {"autoattachGraphicsDevice": False}])
def test_the_state_is_what_the_stream_would_say(phase: str, devices: dict[str, Any]) -> None:
    vmi = Instance(
        {
            "metadata": {"name": "vm", "namespace": "ns", "uid": "1"},
            "spec": {"domain": {"devices": devices}},
            "status": {"phase": phase},
        }
    )
    state = preconditions.screen_state(vmi)
    try:
        preconditions.screen(vmi)
    except StatusError:
        assert state.message
        assert state.waiting is not bool(devices)
        assert not state.ready
    else:
        assert state == preconditions.ScreenState(ready=True)
