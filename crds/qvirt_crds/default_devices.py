"""The part of `defaults` that is about devices: buses, targets, models, and the drives of volumes that no disk names."""

from __future__ import annotations

import re
from typing import Final, Literal, assert_never

from msgspec.structs import replace

from qvirt_crds.devices import (
    CdromTarget,
    Devices,
    Disk,
    DiskBus,
    DiskTarget,
    FloppyTarget,
    I6300esb,
    Input,
    Interface,
    LunTarget,
    Port,
    Watchdog,
)
from qvirt_crds.domain import Domain
from qvirt_crds.model import Empty
from qvirt_crds.volumes import Volume

Target = DiskTarget | LunTarget | CdromTarget | FloppyTarget

MACHINE_TYPES: Final = re.compile(r"q35|pc|microvm|pc-(?:q35|i440fx)-[A-Za-z0-9.+_-]+")

#: Name of the card, and of its network, of an instance that asks for none and does not decline one.
POD_INTERFACE: Final = "default"

#: KubeVirt's name for the tablet of ``autoattachInputDevice``.
AUTOATTACHED_INPUT: Final = "default-0"


def pod_interface(binding: Literal["bridge", "masquerade"]) -> Interface:
    """The card of an instance that asks for no network and does not decline one."""
    match binding:
        case "bridge":
            return Interface(name=POD_INTERFACE, model="virtio", bridge=Empty())
        case "masquerade":
            return Interface(name=POD_INTERFACE, model="virtio", masquerade=Empty())


def chipset(machine_type: str) -> str:
    """``q35``, ``pc`` or ``microvm`` for a machine type, versioned or not; anything else counts as q35."""
    if machine_type == "microvm":
        return "microvm"
    return "pc" if machine_type == "pc" or machine_type.startswith("pc-i440fx") else "q35"


def default_bus(machine_type: str, target: Target) -> DiskBus | None:
    """The bus of a drive that names none; None for a floppy, which has its own controller."""
    match target:
        case FloppyTarget():
            return None
        case LunTarget():
            return "scsi"
        case DiskTarget() | CdromTarget():
            return _BUS[chipset(machine_type)][isinstance(target, CdromTarget)]
        case _:
            assert_never(target)


#: chipset -> (disk, cdrom)
_BUS: Final[dict[str, tuple[DiskBus, DiskBus]]] = {
    "q35": ("sata", "sata"),
    "pc": ("ide", "ide"),
    "microvm": ("virtio", "scsi"),
}


def target_of(disk: Disk) -> Target:
    """What a drive is. One without a target is a plain disk; of several (refused by `validate`) the first counts."""
    return disk.disk or disk.lun or disk.cdrom or disk.floppy or DiskTarget()


def bus_of(disk: Disk, machine_type: str) -> DiskBus | None:
    """The bus that a drive sits on, named or by default; None for a floppy."""
    target = target_of(disk)
    if isinstance(target, FloppyTarget):
        return None
    return target.bus or default_bus(machine_type, target)


def default_pull_policy(image: str) -> str:
    """``Always`` when the image's name can mean another image tomorrow, else ``IfNotPresent`` (as the kubelet's default)."""
    name, digest = image.partition("@")[::2]
    tag = name.rpartition("/")[2].partition(":")[2]
    return "IfNotPresent" if digest or tag not in ("", "latest") else "Always"


def with_device_defaults(domain: Domain, volumes: tuple[Volume, ...]) -> Devices:
    """The devices with every default written out, and a drive for each volume that has none."""
    devices = domain.devices
    machine_type = domain.machine.type if domain.machine else ""
    named = {disk.name for disk in devices.disks}
    inputs = devices.inputs
    if devices.autoattach_input_device and not inputs:
        inputs = (Input(name=AUTOATTACHED_INPUT),)
    disks = (*devices.disks, *(Disk(name=v.name) for v in volumes if v.name not in named))
    return replace(
        devices,
        disks=tuple(_with_target(disk, machine_type) for disk in disks),
        interfaces=tuple(map(_with_model, devices.interfaces)),
        inputs=tuple(_with_input(item, machine_type) for item in inputs),
        watchdog=_with_action(devices.watchdog),
        sound=replace(devices.sound, model=devices.sound.model or "ich9")
        if devices.sound
        else None,
    )


def _with_target(disk: Disk, machine_type: str) -> Disk:
    target = target_of(disk)
    match target:
        case FloppyTarget():
            return replace(disk, floppy=replace(target, tray=target.tray or "closed"))
        case CdromTarget():
            return replace(
                disk,
                cdrom=CdromTarget(
                    bus=target.bus or default_bus(machine_type, target),
                    readonly=True if target.readonly is None else target.readonly,
                    tray=target.tray or "closed",
                ),
            )
        case LunTarget():
            return replace(
                disk, lun=replace(target, bus=target.bus or default_bus(machine_type, target))
            )
        case DiskTarget():
            return replace(
                disk, disk=replace(target, bus=target.bus or default_bus(machine_type, target))
            )
        case _:
            assert_never(target)


def _with_model(interface: Interface) -> Interface:
    return replace(
        interface,
        model=interface.model or "virtio",
        ports=tuple(map(_with_protocol, interface.ports)),
    )


def _with_protocol(port: Port) -> Port:
    return replace(port, protocol=port.protocol or "TCP")


def _with_input(item: Input, machine_type: str) -> Input:
    bus = item.bus or ("virtio" if chipset(machine_type) == "microvm" else "usb")
    return replace(item, bus=bus, type=item.type or "tablet")


def _with_action(watchdog: Watchdog | None) -> Watchdog | None:
    if watchdog is None:
        return None
    model = watchdog.i6300esb or I6300esb()
    return replace(watchdog, i6300esb=replace(model, action=model.action or "reset"))
