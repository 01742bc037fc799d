"""``spec.domain``: the machine without its devices (reference: KubeVirt v1 API, DomainSpec)."""

from __future__ import annotations

from typing import Literal

from qvirt_crds.devices import Devices
from qvirt_crds.model import Model
from qvirt_crds.quantity import Quantity

FeaturePolicy = Literal["force", "require", "optional", "disable", "forbid"]
TickPolicy = Literal["delay", "catchup", "merge", "discard"]


class CpuFeature(Model, frozen=True, kw_only=True):
    """One CPU flag and what to do about it; the default policy is ``require``."""

    name: str
    policy: FeaturePolicy = "require"


class Cpu(Model, frozen=True, kw_only=True):
    """vCPUs = sockets * cores * threads, each 1 when unset."""

    cores: int | None = None
    sockets: int | None = None
    threads: int | None = None
    max_sockets: int | None = None
    #: ``host-model``, ``host-passthrough`` or a name that ``qemu-system-x86_64 -cpu help`` lists.
    model: str | None = None
    features: tuple[CpuFeature, ...] = ()
    dedicated_cpu_placement: bool = False


class Hugepages(Model, frozen=True, kw_only=True):
    """Guest RAM from the host's huge pages."""

    page_size: str


class Memory(Model, frozen=True, kw_only=True):
    """RAM that the guest sees; unset, it follows ``resources``."""

    guest: Quantity | None = None
    max_guest: Quantity | None = None
    hugepages: Hugepages | None = None


class Resources(Model, frozen=True, kw_only=True):
    """Kubernetes requests and limits; keys ``cpu``, ``memory``, ``ephemeral-storage``."""

    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}
    overcommit_guest_overhead: bool = False


class Machine(Model, frozen=True, kw_only=True):
    """QEMU machine type: ``q35``, ``pc``, ``microvm`` or a versioned one such as ``pc-q35-7.2``."""

    type: str = ""


class Bios(Model, frozen=True, kw_only=True):
    """SeaBIOS; ``useSerial`` puts its output on the serial console."""

    use_serial: bool = False


class Efi(Model, frozen=True, kw_only=True):
    """OVMF; ``secureBoot`` is true when unset and needs ``features.smm``."""

    secure_boot: bool | None = None
    persistent: bool | None = None


class Bootloader(Model, frozen=True, kw_only=True):
    """Exactly one of bios and efi; SeaBIOS when neither is given."""

    bios: Bios | None = None
    efi: Efi | None = None


class KernelBootContainer(Model, frozen=True, kw_only=True):
    """A kernel and/or initrd taken out of a container image."""

    image: str
    image_pull_policy: str = ""
    image_pull_secret: str = ""
    kernel_path: str = ""
    initrd_path: str = ""


class KernelBoot(Model, frozen=True, kw_only=True):
    """Direct kernel boot."""

    kernel_args: str = ""
    container: KernelBootContainer | None = None


class Firmware(Model, frozen=True, kw_only=True):
    """SMBIOS identity and how the guest starts."""

    uuid: str = ""
    serial: str = ""
    bootloader: Bootloader | None = None
    kernel_boot: KernelBoot | None = None


class Chassis(Model, frozen=True, kw_only=True):
    """SMBIOS type 3."""

    manufacturer: str = ""
    version: str = ""
    serial: str = ""
    asset: str = ""
    sku: str = ""


class ClockUtc(Model, frozen=True, kw_only=True):
    """Guest clock in UTC, shifted by an offset in seconds."""

    offset_seconds: int | None = None


class Timer(Model, frozen=True, kw_only=True):
    """A timer device; ``present`` is true when unset."""

    present: bool | None = None
    tick_policy: TickPolicy | None = None
    track: Literal["guest", "wall"] | None = None


class Timers(Model, frozen=True, kw_only=True):
    """The timers a guest may be given or denied."""

    hpet: Timer | None = None
    kvm: Timer | None = None
    pit: Timer | None = None
    rtc: Timer | None = None
    hyperv: Timer | None = None


class Clock(Model, frozen=True, kw_only=True):
    """At most one of utc and timezone; UTC when neither is given."""

    utc: ClockUtc | None = None
    timezone: str | None = None
    timer: Timers | None = None


class FeatureState(Model, frozen=True, kw_only=True):
    """On when the object is present, unless ``enabled: false``."""

    enabled: bool | None = None


class FeatureApic(Model, frozen=True, kw_only=True):
    """APIC, with paravirtual end-of-interrupt on request."""

    enabled: bool | None = None
    end_of_interrupt: bool = False


class FeatureKvm(Model, frozen=True, kw_only=True):
    """Hide the hypervisor from the guest."""

    hidden: bool = False


class HypervSpinlocks(Model, frozen=True, kw_only=True):
    """Retries before a spinlock tells the hypervisor; 4096 when unset."""

    enabled: bool | None = None
    spinlocks: int | None = None


class HypervVendorId(Model, frozen=True, kw_only=True):
    """What the guest reads as the hypervisor's name, 12 characters at most."""

    enabled: bool | None = None
    vendorid: str = ""


class HypervSyNicTimer(Model, frozen=True, kw_only=True):
    """Synthetic timers, with direct mode on request."""

    enabled: bool | None = None
    direct: FeatureState | None = None


class HypervTlbFlush(Model, frozen=True, kw_only=True):
    """Paravirtual TLB flush."""

    enabled: bool | None = None
    direct: FeatureState | None = None
    extended: FeatureState | None = None


class FeatureHyperv(Model, frozen=True, kw_only=True):
    """Enlightenments for Windows guests (QEMU docs: system/i386/hyperv)."""

    relaxed: FeatureState | None = None
    vapic: FeatureState | None = None
    spinlocks: HypervSpinlocks | None = None
    vpindex: FeatureState | None = None
    runtime: FeatureState | None = None
    synic: FeatureState | None = None
    synictimer: HypervSyNicTimer | None = None
    reset: FeatureState | None = None
    vendorid: HypervVendorId | None = None
    frequencies: FeatureState | None = None
    reenlightenment: FeatureState | None = None
    tlbflush: HypervTlbFlush | None = None
    ipi: FeatureState | None = None
    evmcs: FeatureState | None = None


class Features(Model, frozen=True, kw_only=True):
    """Hypervisor features; ACPI is on unless denied."""

    acpi: FeatureState | None = None
    apic: FeatureApic | None = None
    smm: FeatureState | None = None
    kvm: FeatureKvm | None = None
    pvspinlock: FeatureState | None = None
    hyperv: FeatureHyperv | None = None
    hyperv_passthrough: FeatureState | None = None


class IoThreads(Model, frozen=True, kw_only=True):
    """How many threads ``supplementalPool`` makes."""

    supplemental_pool_thread_count: int | None = None


class Domain(Model, frozen=True, kw_only=True):
    """A machine: CPU, memory, firmware, clock, features, devices."""

    devices: Devices
    resources: Resources = Resources()
    cpu: Cpu | None = None
    memory: Memory | None = None
    machine: Machine | None = None
    firmware: Firmware | None = None
    chassis: Chassis | None = None
    clock: Clock | None = None
    features: Features | None = None
    io_threads_policy: Literal["shared", "auto", "supplementalPool"] | None = None
    io_threads: IoThreads | None = None
    reboot_policy: Literal["Reboot", "Terminate"] | None = None
