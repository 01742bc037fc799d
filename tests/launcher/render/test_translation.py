"""What the emulator makes of a guest's locked instructions, asked of the real QEMU (ADR 0009).

Between a guest's store into a virtio queue and its look at what the device has written there, a lock prefix (or an xchg) is the
barrier. It must be one for QEMU's own threads, too, or card and driver miss each other's news and both wait for good.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.load import load_manifests
from qvirt_launcher.machine import build_machine
from qvirt_launcher.offline import offline_facts
from qvirt_launcher.render import render

SEED = Path(__file__).resolve().parents[3] / "examples" / "seed-vm.yaml"
#: lock incw 0x500; xchgw %ax, 0x500; movb $0, %al; outb %al, $0xf4 (isa-debug-exit ends QEMU with 2 * 0 + 1).
SECTOR = bytes.fromhex("f0ff060005 87060005 b000 e6f4 f4").ljust(510, b"\0") + b"\x55\xaa"


def translated(folder: Path, *options: str) -> str:
    """QEMU's own account of the code that it made, firmware included."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs QEMU: apt install qemu-system-x86")
    disk, log = folder / "disk", folder / "log"
    disk.write_bytes(SECTOR.ljust(1 << 20, b"\0"))
    done = subprocess.run(
        [
            *("qemu-system-x86_64", "-machine", "q35", "-m", "64", *options),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-drive", f"file={disk},format=raw"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
            *("-d", "in_asm,op", "-D", str(log)),
        ],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return log.read_text(errors="replace")


def test_the_seeds_guest_has_barriers(tmp_path: Path) -> None:
    (vmi,) = load_manifests(SEED.read_text(), SEED.name).instances
    vmi = apply_defaults(vmi, new_uuid=lambda: "5d307ca9-b3ef-428c-8861-06e72d69f223")
    argv = render(build_machine(vmi, offline_facts(vmi, accel="tcg")))
    places = [argv.index(flag) for flag in ("-accel", "-smp", "-cpu")]
    ours = [word for at in places for word in argv[at : at + 2]]
    code = translated(tmp_path, *ours)
    assert "call atomic_xchgw" in code
    assert "call atomic_add_fetchw" in code


def test_without_room_for_a_second_cpu_it_would_have_none(tmp_path: Path) -> None:
    """The reason for the room: once this fails, QEMU has mended it, and the room can go."""
    code = translated(tmp_path, "-accel", "tcg", "-smp", "1")
    assert "lock incw" in code
    assert "atomic_" not in code
