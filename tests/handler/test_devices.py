"""Devices of a container become the guest's user's; the host's own and other files never do."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from qvirt_crds.vm import VirtualMachineInstance
from qvirt_handler import devices
from qvirt_handler.rooted import open_in

VMI = msgspec.convert(
    {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "demo"},
        "spec": {
            "domain": {"devices": {}},
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "a"}},
                {"name": "scratch", "ephemeral": {"persistentVolumeClaim": {"claimName": "b"}}},
                {"name": "disk", "containerDisk": {"image": "c"}},
            ],
        },
    },
    VirtualMachineInstance,
)

pytestmark = pytest.mark.root


class Container:
    """A directory as a container's root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "dev").mkdir()
        self._handle = os.open(root, os.O_PATH | os.O_DIRECTORY)
        self.mounts = "21 1 0:5 / /dev rw - tmpfs tmpfs rw\n"

    def open_inside(self, path: str, flags: int) -> int:
        return open_in(self._handle, path, flags)

    def mountinfo(self) -> str:
        return self.mounts

    def device(self, name: str, kind: int) -> Path:
        path = self.root / "dev" / name
        os.mknod(path, 0o660 | kind, os.makedev(1, 3))
        return path

    def close(self) -> None:
        os.close(self._handle)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    container = Container(tmp_path)
    yield container
    container.close()


def test_kvm_and_block_claims_are_given(container: Container) -> None:
    given = [
        container.device("kvm", stat.S_IFCHR),
        container.device("data", stat.S_IFBLK),
        container.device("scratch", stat.S_IFBLK),
    ]
    kept = [container.device("disk", stat.S_IFBLK), container.device("null", stat.S_IFCHR)]
    assert devices.give(VMI, container) == ("/dev/kvm", "/dev/data", "/dev/scratch")
    assert {(path.stat().st_uid, path.stat().st_gid) for path in given} == {(107, 107)}
    assert {path.stat().st_uid for path in kept} == {0}


def test_files_and_links_are_left_alone(container: Container) -> None:
    (container.root / "dev/kvm").write_text("")
    real = container.device("real", stat.S_IFBLK)
    (container.root / "dev/data").symlink_to("real")
    assert devices.give(VMI, container) == ()
    assert real.stat().st_uid == 0


def test_the_hosts_own_devices_are_left_alone(container: Container) -> None:
    kvm = container.device("kvm", stat.S_IFCHR)
    number = kvm.stat().st_dev
    container.mounts += (
        f"22 1 {os.major(number)}:{os.minor(number)} / /dev rw shared:2 - devtmpfs udev rw\n"
    )
    assert devices.give(VMI, container) == ()
    assert kvm.stat().st_uid == 0
