"""VM object + facts about this host -> `Machine`: every value of QEMU's command line, decided. Pure.

`render` writes a `Machine` down; the parts are decided in modules of their own (`cpu`, `firmware`, `storage`, `nics` ...).
"""

from __future__ import annotations

from qvirt_crds.domain import Domain
from qvirt_crds.model import Model
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher import peripherals
from qvirt_launcher.arguments import Command, Options, Properties
from qvirt_launcher.backing import CopyFile
from qvirt_launcher.board import Family, accelerator, board_options, family
from qvirt_launcher.boot import boot_options, boot_order
from qvirt_launcher.buses import Buses
from qvirt_launcher.clock import plan_clock
from qvirt_launcher.cpu import model, topology
from qvirt_launcher.errors import HostError
from qvirt_launcher.facts import HostFacts
from qvirt_launcher.fds import MONITOR_FD
from qvirt_launcher.firmware import machine_uuid, plan_firmware, smbios
from qvirt_launcher.memory import plan_memory
from qvirt_launcher.nics import plan_nics, present_interfaces
from qvirt_launcher.slots import Slots, slots_of
from qvirt_launcher.storage import plan_storage, uses

_GIB = 1024**3
#: Sockets' paths must fit into a sockaddr_un (unix(7)); our longest file name there has 13 characters.
_MAX_RUN_DIR = 107 - 1 - 13


class Machine(Model, frozen=True, kw_only=True):
    """A QEMU machine in final form; `render` only has to write it."""

    #: Version of what guests see of this layout. A changed layout gets a new number and a template of its own.
    abi: int = 1
    binary: str
    name: str
    uuid: str
    accelerator: Options
    board: Options
    cpu: str
    topology: Options
    memory: Options
    boot: Options
    rtc: Options
    icount: Options | None
    actions: Options
    smbios: tuple[Options, ...]
    globals: tuple[Options, ...]
    objects: tuple[Properties, ...]
    kernel: str
    initrd: str
    kernel_args: str
    monitor_fd: int = MONITOR_FD
    chardevs: tuple[Options, ...]
    audiodevs: tuple[Options, ...]
    vnc: Options | None
    blockdevs: tuple[Properties, ...]
    netdevs: tuple[Properties, ...]
    #: In the order in which QEMU must see them: bridges and controllers before what is plugged into them.
    devices: tuple[Properties, ...]

    #: To be made before QEMU starts, beside the disks.
    steps: tuple[CopyFile, ...] = ()
    #: To be sent over QMP before the guest runs.
    commands: tuple[Command, ...] = ()
    #: Volume name -> the guest's name for the disk, e.g. ``vda``.
    targets: dict[str, str] = {}
    #: What this host does differently from what was asked, one sentence each; to be logged.
    notes: tuple[str, ...] = ()


def build_machine(vmi: VirtualMachineInstance, host: HostFacts) -> Machine:
    """Decide the whole machine.

    :param vmi: validated, with defaults applied.
    :raise SpecError: a combination that QEMU, the machine type or a volume can't do; with the field's path.
    :raise HostError: this host lacks something that the spec needs.
    """
    _check_run_dir(host)
    domain = vmi.spec.domain
    board = family(domain)
    order = boot_order(domain)
    transitional = bool(domain.devices.use_virtio_transitional)
    slots = slots_of(board, acpi=_acpi(domain), transitional=transitional, wishes=_wishes(domain))
    buses = Buses(board, slots, transitional=transitional)

    # Places are given in this order, KubeVirt's: cards, room for more of them, controllers, disks, the rest, room for more.
    nics = plan_nics(domain, host, board, slots, order.interfaces)
    free_for_nics = _free_for_nics(domain)
    slots.keep_free(free_for_nics)
    if uses(domain, "scsi") or (board != "microvm" and not domain.devices.disable_hotplug):
        buses.add_scsi()
    agent = peripherals.agent_channel(host, board, slots, transitional=transitional)
    if uses(domain, "usb") or any(i.bus != "virtio" for i in domain.devices.inputs):
        buses.add_usb("spec.domain.devices")
    storage = plan_storage(domain, host, buses, order)
    memory = plan_memory(domain)
    watchdog, watchdog_action = peripherals.watchdog(domain, slots)
    parts = (
        peripherals.serial_console(domain, host),
        agent,
        peripherals.inputs(domain, buses),
        peripherals.balloon(domain, board, slots, transitional=transitional),
        peripherals.rng(domain, board, slots, transitional=transitional),
        watchdog,
        peripherals.sound(domain, slots),
        peripherals.panic_devices(domain, slots),
    )
    display = peripherals.display(domain, host, board, slots)
    _keep_room(slots, domain, free_for_nics, memory.size)
    firmware = plan_firmware(domain, host)
    clock = plan_clock(domain, host)
    cpu, cpu_notes = model(domain, host)

    return Machine(
        binary=host.qemu_binary,
        name=f"{vmi.metadata.namespace or 'default'}_{vmi.metadata.name}",
        uuid=machine_uuid(domain),
        accelerator=accelerator(host),
        board={**board_options(domain), **memory.board, **firmware.board},
        cpu=cpu,
        topology=topology(domain, host),
        memory={"size": f"{memory.size}B"},
        boot=boot_options(vmi.spec),
        rtc=clock.rtc,
        icount=clock.icount,
        actions=_actions(domain, watchdog_action),
        smbios=smbios(domain),
        globals=(*_board_globals(board), *clock.globals, *firmware.globals, *buses.globals),
        objects=(*memory.objects, *storage.objects, *(o for part in parts for o in part.objects)),
        kernel=firmware.kernel,
        initrd=firmware.initrd,
        kernel_args=firmware.kernel_args,
        chardevs=tuple(chardev for part in parts for chardev in part.chardevs),
        audiodevs=tuple(audiodev for part in parts for audiodev in part.audiodevs),
        vnc=display.vnc,
        blockdevs=(*firmware.blockdevs, *storage.blockdevs),
        netdevs=nics.netdevs,
        devices=(
            *slots.bridges(),
            *display.devices,
            *nics.devices,
            *buses.controllers,
            *storage.devices,
            *(device for part in parts for device in part.devices),
        ),
        steps=firmware.steps,
        commands=(*nics.commands, *storage.commands),
        targets=storage.targets,
        notes=(*cpu_notes, *clock.notes),
    )


def _check_run_dir(host: HostFacts) -> None:
    if len(host.run_dir.encode()) > _MAX_RUN_DIR:
        raise HostError(
            f"{host.run_dir}: this path is too long for the sockets in it ({_MAX_RUN_DIR} bytes at most): "
            "use a shorter run directory, namespace or name"
        )


def _acpi(domain: Domain) -> bool:
    acpi = domain.features.acpi if domain.features else None
    return acpi is None or acpi.enabled is not False


def _wishes(domain: Domain) -> tuple[tuple[str, str], ...]:
    devices = domain.devices
    disks = (
        (f"spec.domain.devices.disks[{i}].disk.pciAddress", disk.disk.pci_address)
        for i, disk in enumerate(devices.disks)
        if disk.disk
    )
    interfaces = (
        (f"spec.domain.devices.interfaces[{i}].pciAddress", interface.pci_address)
        for i, interface in enumerate(devices.interfaces)
        if interface.state != "absent"
    )
    return (*disks, *interfaces)


def _free_for_nics(domain: Domain) -> int:
    """Empty ports after the cards, so that a card plugged in later gets a number near theirs (KubeVirt's topology v3)."""
    count = len(present_interfaces(domain))
    return max(0, 4 - count) if count and not domain.devices.disable_hotplug else 0


def _keep_room(slots: Slots, domain: Domain, free_for_nics: int, memory: int) -> None:
    """Empty ports at the end for what is plugged in later; more for bigger guests (KubeVirt's topology v3)."""
    if domain.devices.disable_hotplug:
        return
    used = len(slots.bridges()) - free_for_nics
    room = max(16 - used, 6) if memory > 2 * _GIB else max(8 - used, 3)
    slots.keep_free(max(0, room - free_for_nics))


def _actions(domain: Domain, watchdog: str | None) -> Options:
    """What QEMU does when something happens to the guest; ``shutdown`` ends QEMU, and the event says why."""
    return {
        "reboot": "shutdown" if domain.reboot_policy == "Terminate" else "reset",
        "shutdown": "poweroff",
        "panic": "shutdown",
        "watchdog": watchdog,
    }


def _board_globals(board: Family) -> tuple[Options, ...]:
    if board != "microvm":
        return ()
    # virtio 1.0, as on PCI; QEMU's default for this transport is the legacy protocol (docs/system/i386/microvm).
    return ({"driver": "virtio-mmio", "property": "force-legacy", "value": False},)
