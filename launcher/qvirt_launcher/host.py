"""Looks at this host, once, before anything is decided: QEMU, firmware, time. The only I/O of rendering.

Facts that were made for a VM (attachments, backings, kernel) are handed in.
"""

from __future__ import annotations

import mmap
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from qvirt_crds.report import Accel, Attachment, KernelFiles
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher import native
from qvirt_launcher.backing import Backing
from qvirt_launcher.errors import HostError
from qvirt_launcher.facts import EFI, EFI_SECURE, OLDEST_QEMU, QEMU_BINARY, FirmwareFiles, HostFacts

_DEADLINE_SECONDS: Final = 20
_VERSION: Final = re.compile(r"QEMU emulator version (\d+)\.(\d+)\.(\d+)")
_LIBURING: Final = b"liburing.so."
_INSTALL: Final = "apt install qemu-system-x86"


def gather_host_facts(
    vmi: VirtualMachineInstance,
    *,
    accel: Accel,
    run_dir: str,
    attachments: tuple[Attachment, ...] = (),
    backings: tuple[Backing, ...] = (),
    kernel: KernelFiles | None = None,
) -> HostFacts:
    """Everything that `machine.build_machine` wants to know.

    :raise HostError: QEMU is not installed, or does not even tell its version.
    """
    _need(QEMU_BINARY)
    return HostFacts(
        accel=accel,
        run_dir=run_dir,
        attachments=attachments,
        backings=backings,
        io_uring=native.has_io_uring() and _is_linked(QEMU_BINARY, _LIBURING),
        # Starting QEMU for it takes as long as half of a guest's start.
        qemu_version=qemu_version() if depends_on_version(vmi) else OLDEST_QEMU,
        efi=_installed(EFI),
        efi_secure=_installed(EFI_SECURE),
        kernel=kernel,
        now=(now := datetime.now(UTC)),
        timezone_offset=timezone_offset(vmi, now),
        cpu_flags=_cpu_flags(Path("/proc/cpuinfo")),
    )


def depends_on_version(vmi: VirtualMachineInstance) -> bool:
    """Whether the command line is another one with another QEMU."""
    return any(interface.model == "igb" for interface in vmi.spec.domain.devices.interfaces)


def qemu_version(binary: str = QEMU_BINARY) -> tuple[int, int, int]:
    """What ``--version`` says.

    :raise HostError: missing, not executable, or not QEMU.
    """
    _need(binary)
    try:
        done = subprocess.run(
            [binary, "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_DEADLINE_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"{binary} --version fails ({error}): {_INSTALL}") from error
    match = _VERSION.match(done.stdout)
    if match is None:
        raise HostError(
            f"{binary} --version says {done.stdout[:80]!r}, which is not QEMU: {_INSTALL}"
        )
    major, minor, micro = match.groups()
    return int(major), int(minor), int(micro)


def _is_linked(binary: str, library: bytes) -> bool:
    """Whether a program names this shared library; QEMU refuses to start when it is told to use what it was built without."""
    path = shutil.which(binary)
    if path is None:
        return False
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content,
    ):
        return content.find(library) >= 0


def _need(binary: str) -> None:
    if shutil.which(binary) is None:
        raise HostError(f"{binary} is not installed on this machine: {_INSTALL}")


def _installed(candidates: tuple[FirmwareFiles, ...]) -> FirmwareFiles | None:
    """The first pair of which both files are there."""
    for files in candidates:
        if Path(files.code).is_file() and Path(files.variables).is_file():
            return files
    return None


def timezone_offset(vmi: VirtualMachineInstance, now: datetime) -> int | None:
    """Seconds east of UTC of the spec's time zone; None when it names none or one that this host doesn't know."""
    clock = vmi.spec.domain.clock
    if clock is None or not clock.timezone:
        return None
    try:
        offset = now.astimezone(ZoneInfo(clock.timezone)).utcoffset()
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
    return None if offset is None else int(offset.total_seconds())


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    try:
        text = cpuinfo.read_text()
    except OSError:
        return frozenset()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(match.group(1).split()) if match else frozenset()
