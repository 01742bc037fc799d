"""Device files of a launcher's container: made by the runtime for root, given to the guest's user here.

Neither fsGroup nor the device plugin API says who owns a device; containerd's and CRI-O's own answer is off by default.
"""

from __future__ import annotations

import logging
import os
import stat
from typing import Final, Protocol

from qvirt_crds import pod_layout
from qvirt_crds.names import RUNTIME_UID
from qvirt_crds.vm import VirtualMachineInstance

_log = logging.getLogger(__name__)

#: What device plugins bring.
_ALWAYS: Final = ("/dev/kvm", "/dev/vhost-net")


class Files(Protocol):
    """A container's file system (`finder.Process`)."""

    def open_inside(self, path: str, flags: int) -> int:
        """A descriptor of a file of it."""

    def mountinfo(self) -> str:
        """Its mounts (proc(5))."""


def give(vmi: VirtualMachineInstance, files: Files) -> tuple[str, ...]:
    """Make the guest's user the owner of those that the container has: KVM, and claims in Block mode. Returns their paths."""
    claims = [v.name for v in vmi.spec.volumes if pod_layout.claim_of(v) is not None]
    wanted = (*_ALWAYS, *(pod_layout.block_device(name) for name in claims))
    return tuple(path for path in wanted if _give(path, files))


def _give(path: str, files: Files) -> bool:
    try:
        handle = files.open_inside(path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return False  # not asked for, or a claim in Filesystem mode
    try:
        found = os.fstat(handle)
        if not (stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode)):
            return False
        if found.st_dev in _shared(files.mountinfo()):
            _log.warning("%s is the host's own file and left alone", path)
            return False
        os.chown(f"/proc/self/fd/{handle}", RUNTIME_UID, RUNTIME_UID)
    except OSError as error:
        _log.warning("%s can't be given to uid %d: %s", path, RUNTIME_UID, error.strerror)
        return False
    finally:
        os.close(handle)
    return True


def _shared(mountinfo: str) -> set[int]:
    """File systems of type devtmpfs, of which the kernel has one for all: what is changed there is changed on the host."""
    numbers: set[int] = set()
    for line in mountinfo.splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("devtmpfs "):
            major, _, minor = fields.split()[2].partition(":")
            numbers.add(os.makedev(int(major), int(minor)))
    return numbers
