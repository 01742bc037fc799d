"""A real guest calls its disks what `Machine.targets` says, on each family of boards, and hears its power button."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from msgspec.structs import replace

from qvirt_crds.names import SERIAL_SOCKET
from qvirt_crds.report import KernelFiles
from qvirt_launcher.backing import Backing, Image
from qvirt_launcher.machine import build_machine

if TYPE_CHECKING:
    from tests.launcher.render.conftest import RealQemu

pytestmark = [pytest.mark.qemu, pytest.mark.guest]

GUEST: Final = Path(__file__).resolve().parents[3] / "build/guest"
BOOT_SECONDS: Final = 100
MIB: Final = 1 << 20

SPECS: Final[dict[str, dict[str, Any]]] = {
    "q35": {
        "disks": [
            {"name": "root", "disk": {"bus": "virtio"}},
            {"name": "scsi", "disk": {"bus": "scsi"}},
            {"name": "late", "disk": {"bus": "virtio"}},
        ],
    },
    "pc": {
        "useVirtioTransitional": True,
        "disks": [
            {"name": "root", "disk": {"bus": "virtio"}},
            {"name": "late", "disk": {"bus": "virtio"}},
        ],
    },
    "microvm": {
        "disks": [
            {"name": "first", "disk": {"bus": "virtio"}},
            {"name": "scsi", "disk": {"bus": "scsi"}},
            {"name": "second", "disk": {"bus": "virtio"}},
        ],
    },
}


class Console:
    """The guest's serial port."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(0.5)
        self._socket.connect(str(path))
        self.text = ""

    def close(self) -> None:
        self._socket.close()

    def send(self, line: str) -> None:
        self._socket.sendall(line.encode() + b"\n")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """:raise AssertionError: not seen in time; the message is the console so far."""
        end = time.monotonic() + BOOT_SECONDS
        while (match := re.search(pattern, self.text)) is None:
            assert time.monotonic() < end, self.text
            try:
                self.text += self._socket.recv(1 << 16).decode(errors="replace")
            except TimeoutError:
                continue
        return match


@pytest.mark.timeout(300)
@pytest.mark.parametrize("board", SPECS)
def test_disks_have_the_names_that_we_say(qemu: RealQemu, board: str) -> None:
    files = {name: GUEST / f"demo-guest-amd64.{name}" for name in ("qcow2", "vmlinuz", "initrd")}
    if not all(file.exists() for file in files.values()):
        pytest.skip("needs the demo guest: make guest")
    boot = {"container": {"image": "i", "kernelPath": "/k", "initrdPath": "/i"}}
    vmi = qemu.instance(
        {
            "machine": {"type": board},
            "memory": {"guest": "192Mi"},
            "firmware": {"kernelBoot": {**boot, "kernelArgs": "console=ttyS0 loglevel=4"}},
            "devices": SPECS[board],
        }
    )
    sizes = {disk.name: 8 + i for i, disk in enumerate(vmi.spec.domain.devices.disks)}
    host = replace(
        qemu.facts(vmi),
        kernel=KernelFiles(kernel=str(files["vmlinuz"]), initrd=str(files["initrd"])),
        backings=tuple(
            Backing(volume=name, image=sized(qemu, name, size)) for name, size in sizes.items()
        ),
    )
    machine = build_machine(vmi, host)
    with qemu.start(machine) as started:
        assert started.greeting()
        started.prepare(machine)
        console = Console(qemu.files.folder / SERIAL_SOCKET)
        try:
            started.command("cont")
            console.wait_for("login: ")
            console.send("root")
            console.wait_for("# ")
            console.send(
                "until pidof acpid; do sleep 1; done; cd /sys/block; grep . */size; echo do''ne"
            )
            console.wait_for("done\r")
            found = dict(re.findall(r"(\w+)/size:(\d+)", console.text))
            expected = {machine.targets[n]: str(size * MIB // 512) for n, size in sizes.items()}
            assert found == expected
            started.command("system_powerdown")
            console.wait_for("power button pressed")
            started.wait_for_end()
        finally:
            console.close()
    assert started.ended[0] == 0


def sized(qemu: RealQemu, name: str, mib: int) -> Image:
    path = qemu.files.folder / f"{name}.img"
    with path.open("wb") as file:
        file.truncate(mib * MIB)
    return Image(path=str(path), format="raw")
