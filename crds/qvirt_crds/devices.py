"""``spec.domain.devices`` (reference: KubeVirt v1 API, Devices).

``floppy`` and the bus ``ide`` are kept, although KubeVirt dropped them: the seed's v1alpha1 has both and QEMU does too.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from qvirt_crds.model import Empty, Model

DiskBus = Literal["virtio", "scsi", "sata", "usb", "ide"]
InterfaceModel = Literal["virtio", "e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139"]
Tray = Literal["open", "closed"]
WatchdogAction = Literal["poweroff", "reset", "shutdown"]


class DiskTarget(Model, frozen=True, kw_only=True):
    """A hard disk; the bus is sata when unset, as in KubeVirt."""

    bus: DiskBus | None = None
    readonly: bool = False
    pci_address: str = ""


class LunTarget(Model, frozen=True, kw_only=True):
    """A SCSI device passed through with its own commands."""

    bus: DiskBus | None = None
    readonly: bool = False
    reservation: bool = False


class CdromTarget(Model, frozen=True, kw_only=True):
    """A CD-ROM drive; read-only and closed when unset."""

    bus: DiskBus | None = None
    readonly: bool | None = None
    tray: Tray | None = None


class FloppyTarget(Model, frozen=True, kw_only=True):
    """A floppy drive (v1alpha1's; QEMU's ``isa-fdc``)."""

    readonly: bool = False
    tray: Tray | None = None


class CustomBlockSize(Model, frozen=True, kw_only=True):
    """Sector sizes in bytes, powers of two from 512."""

    logical: int
    physical: int
    discard_granularity: int | None = None


class BlockSize(Model, frozen=True, kw_only=True):
    """Sector sizes that the guest sees."""

    custom: CustomBlockSize | None = None


class Disk(Model, frozen=True, kw_only=True):
    """A drive; its ``name`` is the name of a volume. At most one of disk, lun, cdrom and floppy."""

    name: str
    disk: DiskTarget | None = None
    lun: LunTarget | None = None
    cdrom: CdromTarget | None = None
    floppy: FloppyTarget | None = None
    boot_order: int | None = None
    serial: str = ""
    dedicated_io_thread: bool | None = msgspec.field(default=None, name="dedicatedIOThread")
    cache: Literal["none", "writethrough", "writeback"] | None = None
    io: Literal["native", "threads"] | None = None
    tag: str = ""
    block_size: BlockSize | None = None
    shareable: bool | None = None
    error_policy: Literal["stop", "ignore", "report", "enospace"] | None = None


class Port(Model, frozen=True, kw_only=True):
    """A port of the guest that shall be reachable; TCP when no protocol is given."""

    port: int
    name: str = ""
    protocol: Literal["TCP", "UDP", ""] = ""


class PrivateDhcpOption(Model, frozen=True, kw_only=True):
    """A DHCP option of the private range 224-254."""

    option: int
    value: str


class DhcpOptions(Model, frozen=True, kw_only=True):
    """What our DHCP answer carries beyond address and routes."""

    boot_file_name: str = ""
    tftp_server_name: str = ""
    ntp_servers: tuple[str, ...] = ()
    private_options: tuple[PrivateDhcpOption, ...] = ()


class Interface(Model, frozen=True, kw_only=True):
    """A network card; its ``name`` is the name of a network. Exactly one binding."""

    name: str
    model: InterfaceModel | Literal[""] = ""
    bridge: Empty | None = None
    masquerade: Empty | None = None
    passt_binding: Empty | None = None
    ports: tuple[Port, ...] = ()
    mac_address: str = ""
    boot_order: int | None = None
    pci_address: str = ""
    acpi_index: int = 0
    tag: str = ""
    dhcp_options: DhcpOptions | None = None
    state: Literal["up", "down", "absent", ""] = ""


class Input(Model, frozen=True, kw_only=True):
    """A pointing device; the only type is tablet."""

    name: str
    bus: Literal["usb", "virtio", ""] = ""
    type: Literal["tablet", ""] = ""


class I6300esb(Model, frozen=True, kw_only=True):
    """Intel's PCI watchdog; the action is reset when unset."""

    action: WatchdogAction | None = None


class Watchdog(Model, frozen=True, kw_only=True):
    """A watchdog device."""

    name: str
    i6300esb: I6300esb | None = None


class Video(Model, frozen=True, kw_only=True):
    """The display adapter."""

    type: Literal["vga", "cirrus", "virtio", "ramfb", "bochs"]


class Sound(Model, frozen=True, kw_only=True):
    """A sound card; ich9 when no model is given."""

    name: str
    model: Literal["ich9", "ac97", ""] = ""


class PanicDevice(Model, frozen=True, kw_only=True):
    """How the guest reports its panic."""

    model: Literal["hyperv", "isa", "pvpanic"] | None = None


class Devices(Model, frozen=True, kw_only=True):
    """All devices of a machine."""

    disks: tuple[Disk, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    inputs: tuple[Input, ...] = ()
    watchdog: Watchdog | None = None
    rng: Empty | None = None
    video: Video | None = None
    sound: Sound | None = None
    panic_devices: tuple[PanicDevice, ...] = ()
    network_interface_multiqueue: bool | None = None
    block_multi_queue: bool | None = None
    autoattach_pod_interface: bool | None = None
    autoattach_graphics_device: bool | None = None
    autoattach_serial_console: bool | None = None
    autoattach_mem_balloon: bool | None = None
    autoattach_input_device: bool | None = None
    log_serial_console: bool | None = None
    disable_hotplug: bool = False
    use_virtio_transitional: bool | None = None
