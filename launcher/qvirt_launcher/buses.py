"""Disk buses: which device a disk becomes and where it is attached; the controllers that the buses need.

A new bus is a word in `qvirt_crds.devices.DiskBus`, a function here and a line in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qvirt_crds.devices import Disk
from qvirt_crds.model import Model
from qvirt_launcher.arguments import Options, Properties, present, refused
from qvirt_launcher.blocks import Drive, error_policy, sector_sizes
from qvirt_launcher.board import Family, virtio_driver
from qvirt_launcher.slots import Slots
from qvirt_launcher.targets import Attachment

_SATA_PORTS: Final = 6
_USB_PORTS: Final = 15
_FLOPPIES: Final = 2
_MAX_SCSI_SERIAL: Final = 36


class Attached(Model, frozen=True, kw_only=True):
    """One disk on its way to a bus: all that the device has to say."""

    disk: Disk
    #: Field of the spec, for errors.
    path: str
    #: None: a drive without a medium.
    drive: Drive | None
    #: Position among the disks whose names start with the same letters.
    index: int
    boot_index: int | None
    io_thread: str | None = None
    #: Queues of a virtio disk; None: QEMU's own choice, one a vCPU.
    queues: int | None = None

    @property
    def id(self) -> str:
        """KubeVirt's alias for a disk's device."""
        return f"ua-{self.disk.name}"


class Buses:
    """The buses of one machine: attaches disks and keeps the controllers that this takes."""

    def __init__(self, board: Family, slots: Slots, *, transitional: bool) -> None:
        self.board = board
        self.slots = slots
        self.transitional = transitional
        #: Devices that must come before the disks, and machine-wide settings.
        self.controllers: list[Properties] = []
        self.globals: list[Options] = []
        self._taken: dict[str, int] = {}

    def attach(self, bus: Attachment, attached: Attached) -> tuple[Properties, ...]:
        """:raise SpecError: the bus is full, or this machine type lacks it."""
        return _BUSES[bus](self, attached)

    def add_scsi(self) -> None:
        """The controller of scsi disks; also there without any, for disks that come later."""
        place = self.slots.virtio("spec.domain.devices.disks")
        driver = virtio_driver("scsi", self.board, self.transitional)
        self.controllers.append({"driver": driver, "id": "scsi0", **place})

    def add_usb(self, path: str) -> None:
        """The controller of usb disks and tablets."""
        place = self.slots.express(path)
        self.controllers.append(
            {"driver": "qemu-xhci", "id": "usb", "p2": _USB_PORTS, "p3": _USB_PORTS, **place}
        )

    def usb_port(self, path: str) -> Properties:
        """The next port of the USB controller."""
        return {"bus": "usb.0", "port": str(1 + self.take("usb", _USB_PORTS, path))}

    def take(self, what: str, limit: int, path: str) -> int:
        """The next free unit."""
        number = self._taken.get(what, 0)
        if number == limit:
            raise refused(path, f"more than {limit} devices on {what}")
        self._taken[what] = number + 1
        return number


def _common(attached: Attached, *, media: bool) -> Properties:
    """What every kind of drive understands. ``media`` is false for hard disks."""
    drive = attached.drive
    writable = drive is not None and not media
    return present(
        {
            "id": attached.id,
            "drive": drive.node if drive else None,
            "bootindex": attached.boot_index,
            "serial": (attached.disk.serial or None) if attached.disk.disk else None,
            "share-rw": True if attached.disk.shareable else None,
            "write-cache": ("off" if drive.cache == "writethrough" else "on")
            if drive and writable
            else None,
            **error_policy(attached.disk),
            **sector_sizes(attached.disk),
        }
    )


def _virtio(buses: Buses, attached: Attached) -> tuple[Properties, ...]:
    disk, path = attached.disk, attached.path
    if disk.disk is None:
        raise refused(path, "only hard disks can be on the bus virtio: use scsi or sata")
    wish = disk.disk.pci_address
    at = f"{path}.disk.pciAddress" if wish else path
    place = buses.slots.virtio(at, wish)
    if attached.io_thread and buses.board == "microvm":
        raise refused(path, "machine type microvm has no I/O threads: leave them out, or use q35")
    return (
        {
            "driver": virtio_driver("blk", buses.board, buses.transitional),
            **_common(attached, media=False),
            **present({"num-queues": attached.queues, "iothread": attached.io_thread}),
            **place,
        },
    )


def _scsi(_buses: Buses, attached: Attached) -> tuple[Properties, ...]:
    disk, path = attached.disk, attached.path
    if len(disk.serial) > _MAX_SCSI_SERIAL:
        raise refused(f"{path}.serial", f"a SCSI disk's has {_MAX_SCSI_SERIAL} characters at most")
    place: Properties = {"bus": "scsi0.0", "channel": 0, "scsi-id": 0, "lun": attached.index}
    if disk.lun is None:
        driver = "scsi-cd" if disk.cdrom else "scsi-hd"
        return ({"driver": driver, **_common(attached, media=bool(disk.cdrom)), **place},)
    if attached.drive is None or not attached.drive.block:
        raise refused(f"{path}.lun", "needs a volume that is a SCSI block device of the host")
    if disk.lun.reservation:
        raise refused(f"{path}.lun.reservation", "is not implemented yet")
    # The device itself answers for its cache, serial number and sectors.
    through = present(
        {
            "id": attached.id,
            "drive": attached.drive.node,
            "bootindex": attached.boot_index,
            "share-rw": True if disk.shareable else None,
            **error_policy(disk),
        }
    )
    return ({"driver": "scsi-block", **through, **place},)


def _sata(buses: Buses, attached: Attached) -> tuple[Properties, ...]:
    if buses.board == "microvm":
        raise refused(attached.path, "machine type microvm has no SATA: use virtio")
    number = buses.take("sata", 256, attached.path)
    controller, port = divmod(number, _SATA_PORTS)
    # q35 has the first controller built in, as the bus "ide".
    name = "ide" if buses.board == "q35" and controller == 0 else f"sata{controller}"
    if name != "ide" and port == 0:
        place = buses.slots.conventional(attached.path)
        buses.controllers.append({"driver": "ich9-ahci", "id": name, **place})
    return (_ata(attached, {"bus": f"{name}.{port}", "unit": 0}),)


def _ide(buses: Buses, attached: Attached) -> tuple[Properties, ...]:
    if buses.board != "pc":
        raise refused(
            attached.path, f"machine type {buses.board} has no IDE: use sata, or machine type pc"
        )
    channel, unit = divmod(buses.take("ide", 4, attached.path), 2)
    return (_ata(attached, {"bus": f"ide.{channel}", "unit": unit}),)


def _ata(attached: Attached, place: Properties) -> Properties:
    if attached.disk.lun is not None:
        raise refused(f"{attached.path}.lun", "needs the bus scsi")
    media = attached.disk.cdrom is not None
    if not media and attached.drive is not None and attached.drive.read_only:
        raise refused(attached.path, "sata and ide disks can't be read-only: use virtio or scsi")
    return {"driver": "ide-cd" if media else "ide-hd", **_common(attached, media=media), **place}


def _usb(buses: Buses, attached: Attached) -> tuple[Properties, ...]:
    if attached.disk.lun is not None:
        raise refused(f"{attached.path}.lun", "needs the bus scsi")
    port = buses.usb_port(attached.path)
    if attached.disk.cdrom is None:
        return ({"driver": "usb-storage", **_common(attached, media=False), **port},)
    # usb-storage is a hard disk always; a CD-ROM is a SCSI drive behind a bulk-only transport.
    bridge = f"usb-{attached.disk.name}"
    return (
        {"driver": "usb-bot", "id": bridge, **port},
        {
            "driver": "scsi-cd",
            **_common(attached, media=True),
            "bus": f"{bridge}.0",
            "scsi-id": 0,
            "lun": 0,
        },
    )


def _floppy(buses: Buses, attached: Attached) -> tuple[Properties, ...]:
    if buses.board == "microvm":
        raise refused(attached.path, "machine type microvm has no floppy drives")
    unit = buses.take("floppy", _FLOPPIES, attached.path)
    if buses.board == "q35" and unit == 0:
        buses.controllers.append({"driver": "isa-fdc", "id": "fdc0"})
    if attached.boot_index is not None:
        # Firmware boots from the controller's drives A and B; the drive itself has no bootindex.
        buses.globals.append(
            {
                "driver": "isa-fdc",
                "property": f"bootindex{'AB'[unit]}",
                "value": attached.boot_index,
            }
        )
    drive = attached.drive
    return (
        {
            "driver": "floppy",
            "id": attached.id,
            **({"drive": drive.node} if drive else {}),
            "bus": "fdc0.0" if buses.board == "q35" else "floppy-bus.0",
            "unit": unit,
        },
    )


_BUSES: Final[dict[Attachment, Callable[[Buses, Attached], tuple[Properties, ...]]]] = {
    "virtio": _virtio,
    "scsi": _scsi,
    "sata": _sata,
    "ide": _ide,
    "usb": _usb,
    "fdc": _floppy,
}
