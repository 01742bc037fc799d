"""``kubevirt.io/v1alpha1`` VirtualMachine, as KubeVirt served it from v0.3.0 to v0.6.0: one running instance.

The union of what those releases accepted; each later one only added fields. Structs whose shape has not changed since
are v1's.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from qvirt_crds.devices import FloppyTarget, Tray, Watchdog
from qvirt_crds.domain import (
    Clock,
    FeatureApic,
    FeatureState,
    HypervSpinlocks,
    HypervVendorId,
    Machine,
)
from qvirt_crds.meta import JsonObject, LocalObjectReference, ObjectMeta
from qvirt_crds.model import Empty, Model
from qvirt_crds.quantity import Quantity

DiskBus = Literal["virtio", "sata", "scsi", "ide", ""]


class DiskTarget(Model, frozen=True, kw_only=True):
    """A hard disk; the bus is sata on q35 and ide on other machines when unset."""

    bus: DiskBus = ""
    readonly: bool = False


class LunTarget(Model, frozen=True, kw_only=True):
    """A SCSI device passed through with its own commands."""

    bus: DiskBus = ""
    readonly: bool = False


class CdromTarget(Model, frozen=True, kw_only=True):
    """A CD-ROM drive; read-only and closed when unset."""

    bus: DiskBus = ""
    readonly: bool | None = None
    tray: Tray | None = None


class Disk(Model, frozen=True, kw_only=True):
    """A drive with a name of its own, over the volume that it names."""

    name: str
    volume_name: str
    disk: DiskTarget | None = None
    lun: LunTarget | None = None
    floppy: FloppyTarget | None = None
    cdrom: CdromTarget | None = None
    #: Since v0.6.0.
    boot_order: int | None = None


class Interface(Model, frozen=True, kw_only=True):
    """A network card (since v0.6.0); bridged when it says nothing."""

    name: str
    bridge: Empty | None = None


class Devices(Model, frozen=True, kw_only=True):
    """All devices of a machine that can be chosen."""

    disks: tuple[Disk, ...] = ()
    watchdog: Watchdog | None = None
    interfaces: tuple[Interface, ...] = ()


class Resources(Model, frozen=True, kw_only=True):
    """Kubernetes requests and limits; the memory request is the guest's memory."""

    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class Cpu(Model, frozen=True, kw_only=True):
    """One socket of so many cores."""

    cores: int | None = None


class Firmware(Model, frozen=True, kw_only=True):
    """SMBIOS identity."""

    uuid: str = ""


class FeatureHyperv(Model, frozen=True, kw_only=True):
    """Enlightenments for Windows guests."""

    relaxed: FeatureState | None = None
    vapic: FeatureState | None = None
    spinlocks: HypervSpinlocks | None = None
    vpindex: FeatureState | None = None
    runtime: FeatureState | None = None
    synic: FeatureState | None = None
    synictimer: FeatureState | None = None
    reset: FeatureState | None = None
    vendorid: HypervVendorId | None = None


class Features(Model, frozen=True, kw_only=True):
    """Hypervisor features; ACPI is on unless denied."""

    acpi: FeatureState | None = None
    apic: FeatureApic | None = None
    hyperv: FeatureHyperv | None = None


class Domain(Model, frozen=True, kw_only=True):
    """A machine: CPU, memory, firmware, clock, features, devices."""

    devices: Devices
    resources: Resources = Resources()
    cpu: Cpu | None = None
    machine: Machine | None = None
    firmware: Firmware | None = None
    clock: Clock | None = None
    features: Features | None = None


class PersistentVolumeClaim(Model, frozen=True, kw_only=True):
    """A claim whose file system holds ``disk.img``."""

    claim_name: str
    read_only: bool = False


class Ephemeral(Model, frozen=True, kw_only=True):
    """Copy-on-write over a claim; what the guest writes is dropped when it stops."""

    persistent_volume_claim: PersistentVolumeClaim


class RegistryDisk(Model, frozen=True, kw_only=True):
    """A disk in a container image (v1: containerDisk)."""

    image: str
    #: Since v0.4.0.
    image_pull_secret: str = ""


class CloudInitNoCloud(Model, frozen=True, kw_only=True):
    """User data for cloud-init, plain, as base64 or from a Secret (key ``userdata``)."""

    secret_ref: LocalObjectReference | None = None
    user_data_base64: str = msgspec.field(default="", name="userDataBase64")
    user_data: str = ""


class EmptyDisk(Model, frozen=True, kw_only=True):
    """A fresh disk that lives as long as the VM runs (since v0.4.0)."""

    capacity: Quantity


class Volume(Model, frozen=True, kw_only=True):
    """A source of bytes; exactly one kind."""

    name: str
    persistent_volume_claim: PersistentVolumeClaim | None = None
    cloud_init_no_cloud: CloudInitNoCloud | None = None
    registry_disk: RegistryDisk | None = None
    ephemeral: Ephemeral | None = None
    empty_disk: EmptyDisk | None = None


class Network(Model, frozen=True, kw_only=True):
    """The pod's network (since v0.6.0), the only one there is."""

    name: str
    pod: Empty | None = None


class Affinity(Model, frozen=True, kw_only=True):
    """Node affinity only."""

    node_affinity: JsonObject | None = None


class VirtualMachineSpec(Model, frozen=True, kw_only=True):
    """One running guest."""

    domain: Domain
    volumes: tuple[Volume, ...] = ()
    node_selector: dict[str, str] = {}
    affinity: Affinity | None = None
    termination_grace_period_seconds: int | None = None
    #: These three since v0.6.0.
    hostname: str = ""
    subdomain: str = ""
    networks: tuple[Network, ...] = ()


class VirtualMachine(Model, frozen=True, kw_only=True):
    """A guest that runs as long as this object exists, once."""

    api_version: Literal["kubevirt.io/v1alpha1"]
    kind: Literal["VirtualMachine"]
    metadata: ObjectMeta
    spec: VirtualMachineSpec
    status: JsonObject | None = None
