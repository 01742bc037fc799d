"""What a guest calls its disks: vda, sdb, hda, fda (KubeVirt's rule; sata, scsi and usb share one count)."""

from __future__ import annotations

from typing import Literal, assert_never

from qvirt_crds.devices import Disk, DiskBus
from qvirt_launcher.arguments import refused

#: A disk's bus, or ``fdc`` for floppies, which have none to choose.
Attachment = DiskBus | Literal["fdc"]
Prefix = Literal["vd", "sd", "hd", "fd"]


def bus_of(disk: Disk, path: str) -> Attachment:
    """:raise SpecError: no target, or one without bus (defaults were not applied)."""
    if disk.floppy is not None:
        return "fdc"
    target = disk.disk or disk.lun or disk.cdrom
    if target is None or target.bus is None:
        raise refused(path, "needs one of disk, cdrom, lun and floppy, with a bus")
    return target.bus


def prefix(bus: Attachment) -> Prefix:
    """The letters before the counted one."""
    match bus:
        case "virtio":
            return "vd"
        case "sata" | "scsi" | "usb":
            return "sd"
        case "ide":
            return "hd"
        case "fdc":
            return "fd"
        case unreachable:
            assert_never(unreachable)


def letters(index: int) -> str:
    """0 is a, 25 z, 26 aa."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


class Names:
    """Counts disks per prefix, in the order of the spec."""

    def __init__(self) -> None:
        self._counts: dict[Prefix, int] = {}

    def next(self, bus: Attachment) -> tuple[str, int]:
        """The next name for this bus, and its position among the disks of the same prefix."""
        first = prefix(bus)
        index = self._counts.get(first, 0)
        self._counts[first] = index + 1
        return first + letters(index), index
