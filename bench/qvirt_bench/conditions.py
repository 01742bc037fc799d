"""What a run was made on."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Final

from qvirt_bench import smaps
from qvirt_bench.figures import Conditions
from qvirt_crds.report import Accel
from qvirt_launcher import accel
from qvirt_launcher.facts import QEMU_BINARY

_GIB: Final = 2**30
_SAMPLE: Final = 2.0


def at_work() -> float:
    """How many processors are busy, over two seconds. (The load of a minute would tell of our own last part.)"""
    before = _idle()
    begun = time.monotonic()
    time.sleep(_SAMPLE)
    idle = (_idle() - before) / (time.monotonic() - begun)
    return max(0.0, (os.cpu_count() or 1) - idle)


def _idle() -> float:
    """Seconds of all processors together, since boot; proc(5): the fourth and fifth are without work, and waiting for a disk."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    return (int(fields[4]) + int(fields[5])) / smaps.TICK


def accelerator() -> Accel:
    """``kvm`` where it runs a guest, else ``tcg``: both sides of every comparison use it."""
    return accel.choose("auto", lambda: accel.try_kvm_once(QEMU_BINARY, None))[0]


def observe(busy_before: float) -> Conditions:
    """The machine as it is now."""
    version = subprocess.run(
        [QEMU_BINARY, "--version"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    return Conditions(
        cpus=os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB,
        at_work=round(busy_before, 2),
        accelerator=accelerator(),
        kernel=platform.release().split("-")[0],
        qemu=version.splitlines()[0].split("(")[0].replace(" emulator version", "").strip(),
    )
