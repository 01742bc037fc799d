"""Root becomes an ordinary user for good, and works on although it can't read its own files any more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.launcher.conftest import USER, Launch, firmware_only

import qvirt_crds
import qvirt_launcher
import qvirt_netsetup
import qvirt_qmp
from qvirt_launcher.errors import PrivilegeError
from qvirt_launcher.privileges import User, resolve

#: Drops in a process of its own and tells what is left.
DROP = """
import json, os, signal, sys
from qvirt_launcher import native, privileges
native.set_death_signal(int(sys.argv[2]))
user = privileges.resolve(sys.argv[1]) if sys.argv[1] else None
privileges.drop(user)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
def denied(what, *arguments):
    try:
        what(*arguments)
    except PermissionError:
        return True
    return False
print(json.dumps({
    "status": status,
    "death": native.death_signal(),
    "umask": os.umask(0),
    "back": denied(os.setuid, 0) and denied(os.setgid, 0) and denied(os.setgroups, []),
    "groups": os.getgroups(),
}))
"""


def dropped(user: str, death: int = 0, prefix: tuple[str, ...] = ()) -> dict[str, object]:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", DROP, user, str(death)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


@pytest.mark.root
@pytest.mark.parametrize("user", [USER, "107", "65534:107"])
def test_nothing_is_left(user: str) -> None:
    told = dropped(user, death=15)
    status = told["status"]
    assert isinstance(status, dict)
    expected = resolve(user)
    assert set(status["Uid"].split()) == {str(expected.uid)}
    assert set(status["Gid"].split()) == {str(expected.gid)}
    assert set(told["groups"]) == set(expected.groups)  # type: ignore[call-overload]
    for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert int(status[f"Cap{kind}"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    # Asked for by whoever started us; setuid(2) clears it.
    assert told["death"] == 15
    assert told["umask"] == 0o077
    assert told["back"]


def test_without_a_user_we_stay_who_we_are_and_can_gain_nothing() -> None:
    status = dropped("")["status"]
    assert isinstance(status, dict)
    assert status["Uid"].split()[0] == str(os.getuid())
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == 0


@pytest.mark.root
def test_root_without_the_right_to_shrink_the_bounding_set_still_drops() -> None:
    status = dropped(USER, prefix=("setpriv", "--bounding-set=-setpcap"))["status"]
    assert isinstance(status, dict)
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapBnd"], 16) != 0


@pytest.mark.root
def test_root_that_may_not_change_its_user_goes_no_further() -> None:
    prefix = ("setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid")
    done = subprocess.run(
        [*prefix, sys.executable, "-c", DROP, USER, "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "PrivilegeError: can't become an ordinary user" in done.stderr


@pytest.mark.parametrize("user", ["root", "0", "0:107"])
def test_root_is_no_ordinary_user(user: str) -> None:
    with pytest.raises(PrivilegeError, match="--user"):
        resolve(user)


@pytest.mark.parametrize("user", ["no-such-user", "", "nobody:staff"])
def test_who_does_not_exist_is_named(user: str) -> None:
    with pytest.raises(PrivilegeError):
        resolve(user)


def test_numbers_need_no_entry() -> None:
    assert resolve("54321").uid == 54321
    assert resolve("54321:54322") == User(
        uid=54321, gid=54322, groups=tuple(sorted({54322, *resolve("54321:54322").groups}))
    )


@pytest.mark.root
@pytest.mark.qemu
async def test_the_whole_way_works_from_files_that_the_user_cannot_read(
    launch: Launch, short_dir: Path
) -> None:
    """Nothing is imported, and no template or codec loaded, once privileges are gone."""
    packages = short_dir / "packages"
    packages.mkdir(mode=0o700)
    for package in (qvirt_crds, qvirt_qmp, qvirt_netsetup, qvirt_launcher):
        shutil.copytree(Path(str(package.__file__)).parent, packages / package.__name__)
    site = Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    for name in ("jinja2", "markupsafe", "msgspec", "pycdlib", "qemu", "yaml"):
        shutil.copytree(site / name, packages / name)
    python = ("env", f"PYTHONPATH={packages}", sys.executable, "-P", "-S")
    volumes = (
        {"name": "seed", "cloudInitConfigDrive": {"userData": "ä", "networkData": "{}"}},
        {"name": "scratch", "emptyDisk": {"capacity": "1Mi"}},
    )
    async with launch(python=python) as launched:
        await launched.sync(firmware_only(*volumes, terminationGracePeriodSeconds=1))
        report = await launched.report("Running", "Failed")
        assert report.message == ""
        assert report.phase == "Running"
        launched.terminate()
        assert await launched.wait() == 7
        assert "Traceback" not in launched.text
    assert os.stat(packages).st_mode & 0o077 == 0
