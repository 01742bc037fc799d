"""Which process is a pod's launcher, and whose socket is believed."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qvirt_handler import finder
from qvirt_handler.errors import LauncherMissing, LauncherStrange
from qvirt_handler.finder import Glance, Process, ProcFinder, is_launcher, names_pod
from qvirt_handler.rooted import open_in

UID = "8c20cfa8-a560-40c1-aaac-13bdcb7fd2d4"


@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods/besteffort/pod{UID}/0a1b",
        f"/kubepods/pod{UID}",
        f"/../../besteffort/pod{UID}/0a1b",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice/crio-0a.scope",
        f"/kubelet/kubepods/pod{UID}/x",
    ],
)
def test_a_pods_control_group_is_known_in_all_its_forms(path: str) -> None:
    assert names_pod(f"12:cpu:/\n0::{path}\n", UID)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        f"/user.slice/{UID}",
        f"/kubepods/pod{UID}0/x",
        f"/kubepods/pod{UID[:-1]}",
        f"/{UID}/pod",
    ],
)
def test_other_control_groups_are_not_the_pods(path: str) -> None:
    assert not names_pod(f"0::{path}\n", UID)


@pytest.mark.parametrize(
    ("cmdline", "is_one"),
    [
        ("/usr/bin/python3 /usr/bin/virt-launcher --pod --run-dir /x", True),
        ("virt-launcher --pod", True),
        ("python3 -P -m qvirt_launcher.main --pod", True),
        ("python3 -m qvirt_launcher.main --run-dir /x", False),
        ("qemu-system-x86_64 -name guest=virt-launcher --pod", False),
        ("qemu-system-x86_64 -a -b -c -name virt-launcher --pod", False),
        ("", False),
    ],
)
def test_a_launcher_is_known_by_its_command(cmdline: str, is_one: bool) -> None:
    assert is_launcher(tuple(cmdline.split())) is is_one


def test_no_launcher_for_an_unknown_pod() -> None:
    with pytest.raises(LauncherMissing, match="none of its processes"):
        ProcFinder().find(UID)


def test_one_look_finds_all_launchers_and_those_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = {1: ("init",), 20: ("virt-launcher", "--pod"), 30: ("runc", "init")}
    asked: list[int] = []

    def cmdline(pid: int) -> tuple[str, ...]:
        asked.append(pid)
        return processes.get(pid, ())

    monkeypatch.setattr(finder, "_cmdline", cmdline)
    monkeypatch.setattr(os, "listdir", lambda _: [*map(str, processes), "self", "sys"])
    clock = [100.0]
    glance = Glance(now=lambda: clock[0])
    assert glance.launchers() == (20,)
    assert glance.launchers() == (20,)
    assert sorted(asked) == [1, 20, 30]  # the second time nobody looked

    clock[0] += 1
    processes[30] = ("virt-launcher", "--pod")
    del processes[20]
    assert glance.launchers() == (30,)
    clock[0] += 7
    processes[40] = ("virt-launcher", "--pod")
    asked.clear()
    assert glance.launchers() == (30, 40)
    assert asked == [40]  # what has been there for a while is no container that is starting
    clock[0] += 7
    processes[1] = ("virt-launcher", "--pod")
    assert sorted(glance.launchers()) == [1, 30, 40]  # and if it is: late, but not never


@pytest.fixture
def root() -> Iterator[int]:
    """Descriptor of a directory that plays another root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run/qvirt").mkdir(parents=True)
        (folder / "var").mkdir()
        (folder / "var/run").symlink_to("/run")
        (folder / "etc").mkdir()
        (folder / "etc/passwd").symlink_to("/../../etc/passwd")
        (folder / "run/qvirt/file").write_text("inside")
        handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        yield handle
        os.close(handle)


def test_links_of_another_root_stay_in_it(root: int) -> None:
    with os.fdopen(open_in(root, "/var/run/qvirt/file", os.O_RDONLY)) as file:
        assert file.read() == "inside"
    # Ours has such a file; theirs is a link that would lead to it.
    with pytest.raises(OSError, match="symbolic links"):
        open_in(root, "/etc/passwd", os.O_RDONLY)


class Here:
    """A pod made of this very process."""

    def __init__(self, *, belongs: bool) -> None:
        self._belongs = belongs

    def find(self, pod_uid: str) -> Process:  # noqa: ARG002  the protocol's
        return Process(os.getpid())

    def belongs(self, process: Process, pod_uid: str) -> bool:  # noqa: ARG002  the protocol's
        return self._belongs


@pytest.fixture
def own_socket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the launcher's would be; this process listens on it."""
    with tempfile.TemporaryDirectory(prefix="qv") as name:
        monkeypatch.setattr(finder, "RUN_DIR", name)
        path = Path(name) / "launcher.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            sock.listen()
            yield path


async def test_a_listener_of_another_pod_is_not_believed(own_socket: Path) -> None:
    with Process(os.getpid()) as us, pytest.raises(LauncherStrange, match="another pod listens"):
        await finder.connect(Here(belongs=False), us, UID)


async def test_a_link_in_place_of_the_socket_is_not_followed(own_socket: Path) -> None:
    own_socket.rename(own_socket.with_name("real"))
    own_socket.symlink_to("real")
    with Process(os.getpid()) as us, pytest.raises(LauncherStrange, match="is not a socket"):
        await finder.connect(Here(belongs=True), us, UID)
    own_socket.unlink()


async def test_nobody_listens_yet(own_socket: Path) -> None:
    own_socket.unlink()
    with Process(os.getpid()) as us, pytest.raises(LauncherMissing, match="doesn't listen"):
        await finder.connect(Here(belongs=True), us, UID)
