"""What a run was made on."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Final

from qvirt_bench.figures import Conditions
from qvirt_crds.report import Accel
from qvirt_launcher import accel
from qvirt_launcher.facts import QEMU_BINARY

_GIB: Final = 2**30


def load() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


def accelerator() -> Accel:
    """``kvm`` where it runs a guest, else ``tcg``: both sides of every comparison use it."""
    return accel.choose("auto", lambda: accel.try_kvm_once(QEMU_BINARY, None))[0]


def observe(load_before: float) -> Conditions:
    """The machine as it is now."""
    version = subprocess.run(
        [QEMU_BINARY, "--version"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    return Conditions(
        cpus=os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB,
        load_before=round(load_before, 2),
        load_after=round(load(), 2),
        accelerator=accelerator(),
        kernel=platform.release().split("-")[0],
        qemu=version.splitlines()[0].split("(")[0].replace(" emulator version", "").strip(),
    )
