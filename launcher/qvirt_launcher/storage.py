"""All disks of a machine: names, nodes, devices, controllers."""

from __future__ import annotations

from qvirt_crds.devices import Disk
from qvirt_crds.domain import Domain
from qvirt_crds.model import Model
from qvirt_launcher.arguments import Command, Properties, refused
from qvirt_launcher.backing import Backing
from qvirt_launcher.blocks import Drive, drive
from qvirt_launcher.boot import BootOrder
from qvirt_launcher.buses import Attached, Buses
from qvirt_launcher.cpu import vcpus
from qvirt_launcher.errors import HostError
from qvirt_launcher.facts import HostFacts
from qvirt_launcher.iothreads import assign_threads, thread_objects
from qvirt_launcher.targets import Names, bus_of


class Storage(Model, frozen=True, kw_only=True):
    """Disks as options. `targets` is volume name -> the guest's name of the disk."""

    objects: tuple[Properties, ...]
    blockdevs: tuple[Properties, ...]
    devices: tuple[Properties, ...]
    commands: tuple[Command, ...]
    targets: dict[str, str]


def uses(domain: Domain, bus: str) -> bool:
    """Whether any disk is on this bus."""
    return any(bus_of(d, _path(i)) == bus for i, d in enumerate(domain.devices.disks))


def plan_storage(domain: Domain, host: HostFacts, buses: Buses, order: BootOrder) -> Storage:
    """:raise SpecError: a disk that its bus, machine type or file can't do.
    :raise HostError: a volume was not prepared.
    """
    backings = {backing.volume: backing for backing in host.backings}
    threads = assign_threads(domain)
    names = Names()
    targets: dict[str, str] = {}
    drives: list[Drive] = []
    devices: list[Properties] = []
    commands: list[Command] = []
    for position, disk in enumerate(domain.devices.disks):
        path = _path(position)
        bus = bus_of(disk, path)
        name, index = names.next(bus)
        targets[disk.name] = name
        source = _drive(disk, backings.get(disk.name), name, path, host)
        if source is not None:
            drives.append(source)
        attached = Attached(
            disk=disk,
            path=path,
            drive=source,
            index=index,
            boot_index=order.disks.get(disk.name),
            io_thread=threads.get(disk.name),
            queues=_queues(domain),
        )
        devices += buses.attach(bus, attached)
        commands += _tray(attached)
    return Storage(
        objects=thread_objects(threads),
        blockdevs=tuple(node for source in drives for node in source.nodes),
        devices=tuple(devices),
        commands=tuple(commands),
        targets=targets,
    )


def _path(position: int) -> str:
    return f"spec.domain.devices.disks[{position}]"


def _drive(
    disk: Disk, backing: Backing | None, name: str, path: str, host: HostFacts
) -> Drive | None:
    if backing is not None:
        return drive(disk, backing, name, path, io_uring=host.io_uring)
    if disk.cdrom is not None:
        return None
    raise HostError(f"{path}: volume {disk.name} was not prepared on this host")


def _queues(domain: Domain) -> int | None:
    multiqueue = domain.devices.block_multi_queue
    if multiqueue is None:
        return None
    return vcpus(domain) if multiqueue else 1


def _tray(attached: Attached) -> list[Command]:
    removable = attached.disk.cdrom or attached.disk.floppy
    if removable is None or removable.tray != "open":
        return []
    if attached.disk.floppy is not None:
        raise refused(
            f"{attached.path}.floppy.tray", "can't be open: QEMU's floppy drives have none"
        )
    return [Command(execute="blockdev-open-tray", arguments={"id": attached.id, "force": True})]
