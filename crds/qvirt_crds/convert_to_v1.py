"""The field rules v1alpha1 -> v1 (reference: KubeVirt v0.3.0-v0.6.0 and v1.9 API types)."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from qvirt_crds import domain as v1
from qvirt_crds import v1alpha1 as old
from qvirt_crds import volumes
from qvirt_crds.devices import (
    CdromTarget,
    Devices,
    Disk,
    DiskTarget,
    Interface,
    LunTarget,
)
from qvirt_crds.meta import JsonObject, ObjectMeta
from qvirt_crds.model import Empty
from qvirt_crds.names import API_V1
from qvirt_crds.vm import (
    VirtualMachine,
    VirtualMachineInstanceSpec,
    VirtualMachineInstanceTemplate,
    VirtualMachineSpec,
)

#: What v0.3.0 gave a VM that requested none.
DEFAULT_MEMORY: Final = "8Mi"

#: Written on v1alpha1 objects about the object itself, of no meaning on the instance.
_NOT_FOR_INSTANCES: Final = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "presets.virtualmachines.kubevirt.io/presets-applied",
)
#: v1 refuses this label on instances; v1alpha1's virt-controller wrote it on the VM.
_NODE_LABEL: Final = "kubevirt.io/nodeName"

_PRINTABLE: Final = {
    "Running": "Running",
    "Migrating": "Running",
    "Succeeded": "Stopped",
    "Failed": "Stopped",
    "Unknown": "Unknown",
}


def machine_to_v1(vm: old.VirtualMachine) -> VirtualMachine:
    """v1's nearest; what it can't say is left out."""
    return VirtualMachine(
        api_version=API_V1,
        kind="VirtualMachine",
        metadata=vm.metadata,
        spec=VirtualMachineSpec(
            run_strategy="Once",
            template=VirtualMachineInstanceTemplate(
                metadata=_template_metadata(vm.metadata), spec=spec_to_v1(vm.spec)
            ),
        ),
        status=_status(vm.status),
    )


def _template_metadata(metadata: ObjectMeta) -> ObjectMeta:
    """A v1alpha1 VM is its own instance: labels and annotations are meant for that."""
    return ObjectMeta(
        labels={k: v for k, v in metadata.labels.items() if k != _NODE_LABEL},
        annotations={k: v for k, v in metadata.annotations.items() if k not in _NOT_FOR_INSTANCES},
    )


def spec_to_v1(
    spec: old.VirtualMachineSpec, *, keep_unused_volumes: bool = False
) -> VirtualMachineInstanceSpec:
    """v1's spec.

    :param keep_unused_volumes: v1 makes a disk of a volume that no disk names, v1alpha1 did not, so such volumes are
        left out. With them every volume keeps its index.
    """
    affinity = spec.affinity.node_affinity if spec.affinity else None
    named = {disk.volume_name for disk in spec.domain.devices.disks}
    return VirtualMachineInstanceSpec(
        domain=_domain(spec.domain),
        volumes=tuple(_volume(v) for v in spec.volumes if keep_unused_volumes or v.name in named),
        networks=tuple(_network(n) for n in spec.networks),
        hostname=spec.hostname,
        subdomain=spec.subdomain,
        termination_grace_period_seconds=spec.termination_grace_period_seconds,
        node_selector=spec.node_selector,
        affinity=None if affinity is None else {"nodeAffinity": affinity},
    )


def _domain(domain: old.Domain) -> v1.Domain:
    cores = domain.cpu.cores if domain.cpu else None
    return v1.Domain(
        devices=_devices(domain.devices),
        resources=_resources(domain.resources),
        # Always written: with no topology v1 would make sockets of the CPU request.
        cpu=v1.Cpu(sockets=1, cores=1 if cores is None else cores, threads=1),
        machine=domain.machine if domain.machine and domain.machine.type else None,
        firmware=v1.Firmware(uuid=domain.firmware.uuid) if domain.firmware else None,
        clock=domain.clock,
        features=_features(domain.features) if domain.features else None,
    )


def _resources(resources: old.Resources) -> v1.Resources:
    requests = resources.requests
    if "memory" not in requests:
        requests = {**requests, "memory": DEFAULT_MEMORY}
    return v1.Resources(requests=requests, limits=resources.limits)


def _features(features: old.Features) -> v1.Features:
    return v1.Features(
        acpi=features.acpi,
        apic=features.apic,
        hyperv=_hyperv(features.hyperv) if features.hyperv else None,
    )


def _hyperv(hyperv: old.FeatureHyperv) -> v1.FeatureHyperv:
    timer = hyperv.synictimer
    return v1.FeatureHyperv(
        relaxed=hyperv.relaxed,
        vapic=hyperv.vapic,
        spinlocks=hyperv.spinlocks,
        vpindex=hyperv.vpindex,
        runtime=hyperv.runtime,
        synic=hyperv.synic,
        synictimer=v1.HypervSyNicTimer(enabled=timer.enabled) if timer else None,
        reset=hyperv.reset,
        vendorid=hyperv.vendorid,
    )


def _devices(devices: old.Devices) -> Devices:
    return Devices(
        disks=tuple(map(_disk, devices.disks)),
        interfaces=tuple(Interface(name=i.name, bridge=Empty()) for i in devices.interfaces),
        watchdog=devices.watchdog,
    )


def _disk(disk: old.Disk) -> Disk:
    """The volume's name becomes the disk's: pods and host paths are named after it."""
    return Disk(
        name=disk.volume_name,
        disk=DiskTarget(bus=disk.disk.bus or None, readonly=disk.disk.readonly)
        if disk.disk
        else None,
        lun=LunTarget(bus=disk.lun.bus or None, readonly=disk.lun.readonly) if disk.lun else None,
        cdrom=CdromTarget(
            bus=disk.cdrom.bus or None, readonly=disk.cdrom.readonly, tray=disk.cdrom.tray
        )
        if disk.cdrom
        else None,
        floppy=disk.floppy,
        boot_order=disk.boot_order,
    )


def _volume(volume: old.Volume) -> volumes.Volume:
    new = volumes.Volume(name=volume.name)
    if volume.registry_disk:
        disk = volumes.ContainerDisk(
            image=volume.registry_disk.image,
            image_pull_secret=volume.registry_disk.image_pull_secret,
            # v1 would default to Always for an image without a tag.
            image_pull_policy="IfNotPresent",
        )
        new = replace(new, container_disk=disk)
    if volume.persistent_volume_claim:
        new = replace(new, persistent_volume_claim=_claim(volume.persistent_volume_claim))
    if volume.ephemeral:
        claim = _claim(volume.ephemeral.persistent_volume_claim)
        new = replace(new, ephemeral=volumes.Ephemeral(persistent_volume_claim=claim))
    if volume.empty_disk:
        new = replace(new, empty_disk=volumes.EmptyDisk(capacity=volume.empty_disk.capacity))
    if volume.cloud_init_no_cloud:
        data = volume.cloud_init_no_cloud
        cloud_init = volumes.CloudInit(
            user_data=data.user_data,
            user_data_base64=data.user_data_base64,
            secret_ref=data.secret_ref,
        )
        new = replace(new, cloud_init_no_cloud=cloud_init)
    return new


def _claim(claim: old.PersistentVolumeClaim) -> volumes.PersistentVolumeClaim:
    return volumes.PersistentVolumeClaim(claim_name=claim.claim_name, read_only=claim.read_only)


def _network(network: old.Network) -> volumes.Network:
    pod = volumes.PodNetwork() if network.pod is not None else None
    return volumes.Network(name=network.name, pod=pod)


def _status(status: JsonObject | None) -> JsonObject | None:
    if status is None:
        return None
    phase = status.get("phase")
    printable = _PRINTABLE.get(phase, "Starting") if isinstance(phase, str) else "Starting"
    new: JsonObject = {"printableStatus": printable}
    if printable == "Running":
        new |= {"created": True, "ready": True}
    if isinstance(status.get("conditions"), list):
        new["conditions"] = status["conditions"]
    return new
