"""The field rules v1 -> v1alpha1, the inverse of `convert_to_v1` as far as v1alpha1 can say it."""

from __future__ import annotations

from typing import Final, get_args

from msgspec.structs import replace

from qvirt_crds import domain as v1
from qvirt_crds import v1alpha1 as old
from qvirt_crds import volumes
from qvirt_crds.devices import Devices, Disk, Interface
from qvirt_crds.devices import DiskBus as NewBus
from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Empty
from qvirt_crds.names import API_V1ALPHA1
from qvirt_crds.vm import RunStrategy, VirtualMachine, VirtualMachineInstanceSpec

_BUSES: Final[dict[str, old.DiskBus]] = {bus: bus for bus in get_args(old.DiskBus)}

#: printableStatus -> phase; what is not here is still on its way.
_PHASES: Final = {
    "Running": "Running",
    "Paused": "Running",
    "Migrating": "Running",
    "Stopping": "Running",
    "Terminating": "Running",
    "Unknown": "Unknown",
}


def machine_to_v1alpha1(vm: VirtualMachine) -> old.VirtualMachine:
    """v1alpha1's nearest; what it can't say is left out."""
    return old.VirtualMachine(
        api_version=API_V1ALPHA1,
        kind="VirtualMachine",
        metadata=vm.metadata,
        spec=_spec(vm.spec.template.spec),
        status=_status(vm.status, vm.spec.run_strategy),
    )


def _spec(spec: VirtualMachineInstanceSpec) -> old.VirtualMachineSpec:
    affinity = spec.affinity.get("nodeAffinity") if spec.affinity else None
    return old.VirtualMachineSpec(
        domain=_domain(spec.domain, spec.volumes),
        volumes=tuple(map(_volume, spec.volumes)),
        node_selector=spec.node_selector,
        affinity=old.Affinity(node_affinity=affinity) if isinstance(affinity, dict) else None,
        termination_grace_period_seconds=spec.termination_grace_period_seconds,
        hostname=spec.hostname,
        subdomain=spec.subdomain,
        networks=tuple(
            old.Network(name=n.name, pod=None if n.pod is None else Empty()) for n in spec.networks
        ),
    )


def _domain(domain: v1.Domain, all_volumes: tuple[volumes.Volume, ...]) -> old.Domain:
    return old.Domain(
        devices=_devices(domain.devices, all_volumes),
        resources=old.Resources(requests=domain.resources.requests, limits=domain.resources.limits),
        cpu=old.Cpu(cores=_vcpus(domain.cpu)) if domain.cpu else None,
        machine=domain.machine,
        firmware=old.Firmware(uuid=domain.firmware.uuid) if domain.firmware else None,
        clock=domain.clock,
        features=_features(domain.features) if domain.features else None,
    )


def _vcpus(cpu: v1.Cpu) -> int | None:
    """v1alpha1 has one socket of single-threaded cores: as many cores as the guest has CPUs."""
    counts = [n for n in (cpu.sockets, cpu.cores, cpu.threads) if n is not None]
    product = 1
    for count in counts:
        product *= count
    return product if counts else None


def _features(features: v1.Features) -> old.Features:
    return old.Features(
        acpi=features.acpi,
        apic=features.apic,
        hyperv=_hyperv(features.hyperv) if features.hyperv else None,
    )


def _hyperv(hyperv: v1.FeatureHyperv) -> old.FeatureHyperv:
    timer = hyperv.synictimer
    return old.FeatureHyperv(
        relaxed=hyperv.relaxed,
        vapic=hyperv.vapic,
        spinlocks=hyperv.spinlocks,
        vpindex=hyperv.vpindex,
        runtime=hyperv.runtime,
        synic=hyperv.synic,
        synictimer=v1.FeatureState(enabled=timer.enabled) if timer else None,
        reset=hyperv.reset,
        vendorid=hyperv.vendorid,
    )


def _devices(devices: Devices, all_volumes: tuple[volumes.Volume, ...]) -> old.Devices:
    """v1 attaches volumes that no disk names; v1alpha1 needs the disk."""
    named = {disk.name for disk in devices.disks}
    implied = (Disk(name=v.name) for v in all_volumes if v.name not in named)
    return old.Devices(
        disks=tuple(_disk(disk) for disk in (*devices.disks, *implied)),
        watchdog=devices.watchdog,
        interfaces=tuple(map(_interface, devices.interfaces)),
    )


def _interface(interface: Interface) -> old.Interface:
    return old.Interface(name=interface.name, bridge=interface.bridge)


def _bus(bus: NewBus | None) -> old.DiskBus:
    return _BUSES.get(bus, "") if bus else ""


def _disk(disk: Disk) -> old.Disk:
    new = old.Disk(name=disk.name, volume_name=disk.name, boot_order=disk.boot_order)
    if disk.disk:
        target = old.DiskTarget(bus=_bus(disk.disk.bus), readonly=disk.disk.readonly)
        new = replace(new, disk=target)
    if disk.lun:
        new = replace(new, lun=old.LunTarget(bus=_bus(disk.lun.bus), readonly=disk.lun.readonly))
    if disk.cdrom:
        cdrom = disk.cdrom
        target_cdrom = old.CdromTarget(
            bus=_bus(cdrom.bus), readonly=cdrom.readonly, tray=cdrom.tray
        )
        new = replace(new, cdrom=target_cdrom)
    return replace(new, floppy=disk.floppy) if disk.floppy else new


def _volume(volume: volumes.Volume) -> old.Volume:
    new = old.Volume(name=volume.name)
    if volume.container_disk:
        disk = volume.container_disk
        registry = old.RegistryDisk(image=disk.image, image_pull_secret=disk.image_pull_secret)
        new = replace(new, registry_disk=registry)
    if volume.persistent_volume_claim:
        new = replace(new, persistent_volume_claim=_claim(volume.persistent_volume_claim))
    if volume.ephemeral:
        claim = _claim(volume.ephemeral.persistent_volume_claim)
        new = replace(new, ephemeral=old.Ephemeral(persistent_volume_claim=claim))
    if volume.empty_disk:
        new = replace(new, empty_disk=old.EmptyDisk(capacity=volume.empty_disk.capacity))
    if volume.cloud_init_no_cloud:
        data = volume.cloud_init_no_cloud
        cloud_init = old.CloudInitNoCloud(
            secret_ref=data.secret_ref,
            user_data_base64=data.user_data_base64,
            user_data=data.user_data,
        )
        new = replace(new, cloud_init_no_cloud=cloud_init)
    return new


def _claim(claim: volumes.PersistentVolumeClaim) -> old.PersistentVolumeClaim:
    return old.PersistentVolumeClaim(claim_name=claim.claim_name, read_only=claim.read_only)


def _status(status: JsonObject | None, strategy: RunStrategy | None) -> JsonObject | None:
    if status is None:
        return None
    new: JsonObject = {}
    printable = status.get("printableStatus")
    if printable == "Stopped":
        # Only what runs once has ended for good when it is stopped.
        new["phase"] = "Succeeded" if strategy == "Once" else ""
    elif isinstance(printable, str):
        new["phase"] = _PHASES.get(printable, "Scheduling")
    if isinstance(status.get("conditions"), list):
        new["conditions"] = status["conditions"]
    return new
