"""What a command line depends on besides the spec: this host and what was prepared on it, as data.

`host.gather_host_facts` observes them, `offline.offline_facts` makes them up for ``qvirt render``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from qvirt_crds.model import Model
from qvirt_crds.report import Accel, Attachment, KernelFiles
from qvirt_launcher.backing import Backing

QEMU_BINARY: Final = "qemu-system-x86_64"
#: What Debian 12 has; nothing older is tried.
OLDEST_QEMU: Final = (7, 2, 0)


class FirmwareFiles(Model, frozen=True, kw_only=True):
    """OVMF: code that is shared, and the template of a VM's own variables."""

    code: str
    variables: str


#: Where distributions put OVMF, in order of preference: Debian and Ubuntu (2 and 4 MB flash), Fedora and RHEL, Arch.
#: Both files of a pair must be there. A pair with Secure Boot has the keys of its variables enrolled.
EFI: Final = (
    FirmwareFiles(
        code="/usr/share/OVMF/OVMF_CODE_4M.fd", variables="/usr/share/OVMF/OVMF_VARS_4M.fd"
    ),
    FirmwareFiles(code="/usr/share/OVMF/OVMF_CODE.fd", variables="/usr/share/OVMF/OVMF_VARS.fd"),
    FirmwareFiles(
        code="/usr/share/edk2/ovmf/OVMF_CODE.fd", variables="/usr/share/edk2/ovmf/OVMF_VARS.fd"
    ),
    FirmwareFiles(
        code="/usr/share/edk2/x64/OVMF_CODE.4m.fd", variables="/usr/share/edk2/x64/OVMF_VARS.4m.fd"
    ),
)
EFI_SECURE: Final = (
    FirmwareFiles(
        code="/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
        variables="/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
    ),
    FirmwareFiles(
        code="/usr/share/OVMF/OVMF_CODE.secboot.fd", variables="/usr/share/OVMF/OVMF_VARS.ms.fd"
    ),
    FirmwareFiles(
        code="/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
        variables="/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd",
    ),
)


class HostFacts(Model, frozen=True, kw_only=True):
    """Everything that `machine.build_machine` may know of the world."""

    accel: Accel
    #: Absolute; QEMU makes its sockets here.
    run_dir: str
    attachments: tuple[Attachment, ...] = ()
    backings: tuple[Backing, ...] = ()
    #: Whether QEMU may use io_uring here: it was built with it, and neither kernel nor container runtime forbid it.
    io_uring: bool = False
    #: argv[0], found on PATH.
    qemu_binary: str = QEMU_BINARY
    #: At least; exact where it matters (`host.depends_on_version`).
    qemu_version: tuple[int, int, int] = OLDEST_QEMU
    #: None: not installed.
    efi: FirmwareFiles | None = None
    efi_secure: FirmwareFiles | None = None
    kernel: KernelFiles | None = None
    #: The present, with a time zone; only specs with a clock offset or time zone make argv depend on it.
    now: datetime
    #: Seconds east of UTC of ``clock.timezone`` at `now`; None: the spec has none, or the host doesn't know it.
    timezone_offset: int | None = None
    #: Flags of the host's CPU as the kernel writes them; to honour the feature policy ``forbid``.
    cpu_flags: frozenset[str] = frozenset()
