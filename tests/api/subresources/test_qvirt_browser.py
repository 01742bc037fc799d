"""`qvirt vnc --browser`: who gets through the port on this machine, and how far."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from tests.api.subresources.conftest import USER, Api, FakeKube

from qvirt_crds.names import PLAIN_STREAM
from qvirt_launcher.cli import browser
from qvirt_launcher.cli.browser import Answer, Door, Forward, Request
from qvirt_launcher.cli.cluster.errors import ClusterRefused
from qvirt_launcher.cli.cluster.kubeconfig import Target
from qvirt_launcher.cli.where import Remote

STREAM = "/apis/subresources.kubevirt.io/v1/namespaces/ns/virtualmachineinstances/vm/vnc"


@pytest.fixture
def remote(api: Api) -> Remote:
    tls = api.pki.client(api.pki.own, api.pki.front, "front-proxy-client")
    target = Target(server=api.url, namespace="ns", tls=tls, headers=USER)
    return Remote(target=target, namespace="ns", name="vm")


@pytest.fixture
async def page(remote: Remote, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[str]:
    """Its address, as the command prints it."""
    serving = asyncio.create_task(browser.serve(remote, 0, open_browser=False))
    said = ""
    async with asyncio.timeout(30):
        while "Ctrl-C" not in said:
            await asyncio.sleep(0.02)
            said += capsys.readouterr().out
    yield said.split()[4].rstrip(",")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_the_page_its_files_and_the_screen(
    page: str, session: aiohttp.ClientSession, cluster: FakeKube
) -> None:
    """With the kubeconfig's credentials, of which the browser has none."""
    cluster.vmi()
    async with session.get(page) as answer:
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "page/screen.js" in await answer.text()
    for file, text in (("/novnc/core/rfb.js", "// core/rfb.js"), ("/state", '{"ready":true}')):
        async with session.get(page + file) as answer:
            assert (answer.status, await answer.text()) == (200, text)
    stream = page.removesuffix("/page")
    async with session.ws_connect(stream, protocols=(PLAIN_STREAM,)) as socket:
        assert socket.protocol == PLAIN_STREAM
        assert await socket.receive_bytes() == b"this is vnc\n"
        await socket.send_bytes(bytes(300_000))
        assert await socket.receive_bytes() == bytes(300_000)
    assert {review["user"] for review in cluster.reviews} == {"jane"}


async def test_a_stream_that_is_refused(page: str, session: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await session.ws_connect(page.removesuffix("/page"), protocols=(PLAIN_STREAM,))
    assert caught.value.status == 404


async def test_nobody_else_gets_through(
    page: str, session: aiohttp.ClientSession, cluster: FakeKube
) -> None:
    cluster.vmi()
    asked = len(cluster.reviews)
    root, word = page.split("/")[2], page.split("/")[3]
    stream = page.removesuffix("/page")
    for url, headers, status in (
        (page, {"Host": f"evil.example:{root.rpartition(':')[2]}"}, 403),
        (page, {"Origin": "http://evil.example"}, 403),
        (stream, {"Origin": "null", "Connection": "Upgrade", "Upgrade": "websocket"}, 403),
        (f"http://{root}/", {}, 404),
        (page.replace(word, "x" * len(word)), {}, 404),
        (f"{page}x", {}, 404),
        (f"http://{root}/{word}/api/v1/secrets", {}, 404),
    ):
        async with session.get(url, headers=headers) as answer:
            assert answer.status == status, (url, headers)
    async with session.post(page) as answer:
        assert answer.status == 405
    assert len(cluster.reviews) == asked


async def test_no_page_is_an_error_at_once(remote: Remote, cluster: FakeKube) -> None:
    cluster.denied = "no"
    with pytest.raises(ClusterRefused, match=r"ns/vm on .*: no"):
        await browser.serve(remote, 0, open_browser=False)


def asked(target: str, method: str = "GET", **headers: str) -> Request:
    return Request(method=method, target=target, headers={"host": "127.0.0.1:1", **headers})


def test_the_address_on_a_command_line_leads_in_once() -> None:
    door = Door(STREAM)
    found = door.decide(asked(door.first), 1)
    assert found == Answer(status="303 See Other", location=door.page)
    assert door.decide(asked(door.first), 1) == Answer(status="404 Not Found")
    assert door.decide(asked("/"), 1) == Answer(status="404 Not Found")
    assert door.decide(asked(door.page), 1) == Forward(path=f"{STREAM}/page")


@pytest.mark.parametrize(
    "rest",
    ["/../../pause", "/..%2f..", "/%2e%2e/", "/a?watch=1", "/\\..\\", "#", "/../../../../.."],
)
def test_no_path_leads_elsewhere(rest: str) -> None:
    door = Door(STREAM)
    assert door.decide(asked(door.page + rest), 1) == Answer(status="404 Not Found")
