"""Semantic refusals of disks and volumes. Wording is KubeVirt's where its webhook has one."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final, assert_never

from qvirt_crds.default_devices import Target, bus_of, chipset, target_of
from qvirt_crds.devices import (
    CdromTarget,
    CustomBlockSize,
    Disk,
    DiskBus,
    DiskTarget,
    FloppyTarget,
    LunTarget,
)
from qvirt_crds.errors import Cause
from qvirt_crds.rules_values import (
    at_most,
    dns_label,
    is_dns_subdomain,
    is_pci_address,
    not_implemented,
    quantity,
    within,
)
from qvirt_crds.vm import VirtualMachineInstanceSpec
from qvirt_crds.volumes import CloudInit, ContainerDisk, PersistentVolumeClaim, Volume

#: Inline cloud-init data, decoded, in bytes (KubeVirt's limit; a Secret has none).
INLINE_LIMIT: Final = 2048
_MIB: Final = 2**20
_SECTOR: Final = 512
_MAX_SECTOR: Final = 2**21
_SERIAL: Final = re.compile(r"[A-Za-z0-9_.+-]*")
_TARGETS: Final = ("disk", "lun", "cdrom", "floppy")
_SOURCES: Final = tuple(n for n in Volume.__struct_fields__ if n != "name")
_PULL_POLICIES: Final = ("", "Always", "IfNotPresent", "Never")


def check_storage(
    spec: VirtualMachineInstanceSpec, machine_type: str, path: str
) -> Iterator[Cause]:
    """All that is wrong with an instance's disks and volumes."""
    disks, volumes = f"{path}.domain.devices.disks", f"{path}.volumes"
    yield from at_most(len(spec.domain.devices.disks), disks)
    yield from at_most(len(spec.volumes), volumes)
    yield from _same_names([d.name for d in spec.domain.devices.disks], disks)
    yield from _same_names([v.name for v in spec.volumes], volumes)
    by_name = {v.name: v for v in spec.volumes}
    for index, disk in enumerate(spec.domain.devices.disks):
        inner = f"{disks}[{index}]"
        if disk.name not in by_name:
            yield Cause(path=f"{inner}.name", message=f"{inner}.Name '{disk.name}' not found.")
        yield from _disk(disk, by_name.get(disk.name), machine_type, inner)
    yield from _few_enough(spec.domain.devices.disks, machine_type, disks)
    for index, volume in enumerate(spec.volumes):
        yield from _volume(volume, f"{volumes}[{index}]")


def _same_names(names: list[str], path: str) -> Iterator[Cause]:
    for index, name in enumerate(names):
        first = names.index(name)
        if first < index:
            yield Cause(
                path=f"{path}[{index}].name",
                message=f"{path}[{index}] and {path}[{first}] must not have the same Name.",
            )


def _disk(disk: Disk, volume: Volume | None, machine_type: str, path: str) -> Iterator[Cause]:
    yield from dns_label(disk.name, f"{path}.name")
    if sum(getattr(disk, name) is not None for name in _TARGETS) > 1:
        yield Cause(path=path, message=f"{path} can only have a single target type defined")
        return
    target = target_of(disk)
    bus = bus_of(disk, machine_type)
    yield from _bus(target, bus, machine_type, path)
    yield from _target(disk, target, bus, volume, path)
    yield from _options(disk, bus, path)
    if disk.block_size and disk.block_size.custom:
        yield from _block_size(disk.block_size.custom, bus, f"{path}.blockSize.custom")


def _name_of(target: Target) -> str:
    match target:
        case DiskTarget():
            return "disk"
        case LunTarget():
            return "lun"
        case CdromTarget():
            return "cdrom"
        case FloppyTarget():
            return "floppy"
        case _:
            assert_never(target)


def _bus(target: Target, bus: DiskBus | None, machine_type: str, path: str) -> Iterator[Cause]:
    kind = chipset(machine_type)
    where = f"{path}.{_name_of(target)}"
    if isinstance(target, FloppyTarget):
        if kind == "microvm":
            yield Cause(path=where, message="the machine type microvm has no floppy drive")
        return
    if isinstance(target, CdromTarget) and bus == "virtio":
        yield Cause(path=f"{where}.bus", message="Bus type virtio is invalid for CD-ROM device")
    elif isinstance(target, LunTarget) and bus != "scsi":
        yield Cause(path=f"{where}.bus", message=f"a LUN needs the bus scsi, found {bus}")
    elif bus == "ide" and kind != "pc":
        message = f"the machine type {machine_type} has no IDE controller; use the bus sata, or the machine type pc"
        yield Cause(path=f"{where}.bus", message=message)
    elif kind == "microvm" and bus in ("sata", "usb"):
        message = f"the machine type microvm has no PCI, so no bus {bus}; use virtio or scsi"
        yield Cause(path=f"{where}.bus", message=message)


def _target(
    disk: Disk, target: Target, bus: DiskBus | None, volume: Volume | None, path: str
) -> Iterator[Cause]:
    match target:
        case DiskTarget():
            if target.readonly and bus in ("sata", "ide"):
                message = f"{bus} hard-disks do not support read-only."
                yield Cause(path=f"{path}.disk.readonly", message=message)
            yield from _pci_address(disk, target, bus, f"{path}.disk.pciAddress")
        case LunTarget():
            if volume and not volume.persistent_volume_claim:
                message = f"{path}.lun can only be mapped to a DataVolume or PersistentVolumeClaim volume."
                yield Cause(path=f"{path}.lun", message=message)
            if target.reservation:
                yield not_implemented(f"{path}.lun.reservation")
        case CdromTarget():
            if target.readonly is False:
                message = "a CD-ROM can't be written to; use a disk"
                yield Cause(path=f"{path}.cdrom.readonly", message=message)
        case FloppyTarget():
            pass
        case _:
            assert_never(target)


def _pci_address(disk: Disk, target: DiskTarget, bus: DiskBus | None, path: str) -> Iterator[Cause]:
    if not target.pci_address:
        return
    if bus != "virtio":
        message = f"disk {disk.name} - setting a PCI address is only possible with bus type virtio."
        yield Cause(path=path, message=message)
    if not is_pci_address(target.pci_address):
        message = f"disk {disk.name} has malformed PCI address ({target.pci_address})."
        yield Cause(path=path, message=message)


def _options(disk: Disk, bus: DiskBus | None, path: str) -> Iterator[Cause]:
    if not _SERIAL.fullmatch(disk.serial):
        message = f"{path}.serial must be made up of the following characters [A-Za-z0-9_.+-], if specified"
        yield Cause(path=f"{path}.serial", message=message)
    if len(disk.serial) > 256:
        message = f"{path}.serial must be less than or equal to 256 in length, if specified"
        yield Cause(path=f"{path}.serial", message=message)
    if disk.tag:
        yield not_implemented(f"{path}.tag")
    if disk.dedicated_io_thread and bus != "virtio":
        message = f"IOThreads are not supported for disks on a {bus or 'floppy'} bus"
        yield Cause(path=f"{path}.dedicatedIOThread", message=message)
    if disk.io == "native" and disk.cache not in (None, "none"):
        message = f"native needs cache none, found {disk.cache}"
        yield Cause(path=f"{path}.io", message=message)
    if disk.shareable and disk.cache not in (None, "none"):
        message = f"a shareable disk needs cache none, found {disk.cache}"
        yield Cause(path=f"{path}.cache", message=message)


def _block_size(size: CustomBlockSize, bus: DiskBus | None, path: str) -> Iterator[Cause]:
    named = [("logical", size.logical), ("physical", size.physical)]
    if size.discard_granularity is not None:
        yield from _discard(size.discard_granularity, size.logical, f"{path}.discardGranularity")
    for name, value in named:
        inner = f"{path}.{name}"
        if value < _SECTOR:
            message = (
                f"Provided size of {value} is less than the supported minimum size of {_SECTOR}"
            )
            yield Cause(path=inner, message=message)
        elif value > _MAX_SECTOR:
            message = f"Provided size of {value} is greater than the supported maximum size of {_MAX_SECTOR}"
            yield Cause(path=inner, message=message)
        elif value & (value - 1):
            yield Cause(path=inner, message=f"Provided size of {value} is not a power of 2")
    if size.logical > size.physical:
        message = f"Logical size {size.logical} must be the same or less than the physical size of {size.physical}"
        yield Cause(path=f"{path}.logical", message=message)
    if bus in ("sata", "ide") and size.logical != _SECTOR:
        message = f"Logical size {size.logical} must be {_SECTOR} for {bus.upper()} devices"
        yield Cause(path=f"{path}.logical", message=message)


def _discard(value: int, logical: int, path: str) -> Iterator[Cause]:
    if value < 0 or (logical > 0 and value % logical):
        yield Cause(path=path, message=f"{value} is not a multiple of the logical size {logical}")


def _few_enough(disks: tuple[Disk, ...], machine_type: str, path: str) -> Iterator[Cause]:
    """PCs have four IDE drives and two floppy drives."""
    ide = [i for i, disk in enumerate(disks) if bus_of(disk, machine_type) == "ide"]
    floppies = [i for i, disk in enumerate(disks) if disk.floppy]
    for index in ide[4:]:
        yield Cause(path=f"{path}[{index}]", message="IDE has room for 4 drives; use another bus")
    for index in floppies[2:]:
        yield Cause(path=f"{path}[{index}]", message="there is room for 2 floppy drives")


def _volume(volume: Volume, path: str) -> Iterator[Cause]:
    yield from dns_label(volume.name, f"{path}.name")
    if sum(getattr(volume, name) is not None for name in _SOURCES) != 1:
        yield Cause(path=path, message=f"{path} must have exactly one source type set")
    if volume.container_disk:
        yield from _container_disk(volume.container_disk, f"{path}.containerDisk")
    if volume.persistent_volume_claim:
        yield from _claim(volume.persistent_volume_claim, f"{path}.persistentVolumeClaim")
    if volume.ephemeral:
        claim = volume.ephemeral.persistent_volume_claim
        yield from _claim(claim, f"{path}.ephemeral.persistentVolumeClaim")
    if volume.empty_disk:
        inner = f"{path}.emptyDisk.capacity"
        yield from quantity(volume.empty_disk.capacity, inner)
        yield from within(volume.empty_disk.capacity, inner, _MIB, "1Mi")
    if volume.cloud_init_no_cloud:
        yield from _cloud_init(volume.cloud_init_no_cloud, f"{path}.cloudInitNoCloud")
    if volume.cloud_init_config_drive:
        yield from _cloud_init(volume.cloud_init_config_drive, f"{path}.cloudInitConfigDrive")


def _container_disk(disk: ContainerDisk, path: str) -> Iterator[Cause]:
    if not disk.image or any(c.isspace() or not c.isprintable() for c in disk.image):
        message = f"expected the name of an image, found {disk.image!r}"
        yield Cause(path=f"{path}.image", message=message)
    if disk.path == "/":
        yield Cause(path=f"{path}.path", message=f"{path}.path must not point to root")
    elif disk.path and (not disk.path.startswith("/") or ".." in disk.path.split("/")):
        message = f"{path}.path must be an absolute path to a file without relative components"
        yield Cause(path=f"{path}.path", message=message)
    if disk.image_pull_policy not in _PULL_POLICIES:
        message = f"expected one of Always, IfNotPresent, Never, found {disk.image_pull_policy!r}"
        yield Cause(path=f"{path}.imagePullPolicy", message=message)


def _claim(claim: PersistentVolumeClaim, path: str) -> Iterator[Cause]:
    if not is_dns_subdomain(claim.claim_name):
        message = f"{claim.claim_name!r} is not the name of a PersistentVolumeClaim"
        yield Cause(path=f"{path}.claimName", message=message)
    if claim.hotpluggable:
        yield not_implemented(f"{path}.hotpluggable")


def _cloud_init(data: CloudInit, path: str) -> Iterator[Cause]:
    user = (data.user_data, data.user_data_base64, data.secret_ref)
    network = (data.network_data, data.network_data_base64, data.network_data_secret_ref)
    if sum(map(bool, user)) > 1:
        yield Cause(path=path, message=f"{path} must have only one userdatasource set.")
    if sum(map(bool, network)) > 1:
        yield Cause(path=path, message=f"{path} must have only one networkdatasource set.")
    if not any((*user, *network)):
        message = f"{path} must have at least one userdatasource or one networkdatasource set."
        yield Cause(path=path, message=message)
    yield from _inline(data.user_data, data.user_data_base64, "userData", path)
    yield from _inline(data.network_data, data.network_data_base64, "networkData", path)
    for name, ref in (
        ("secretRef", data.secret_ref),
        ("networkDataSecretRef", data.network_data_secret_ref),
    ):
        if ref and not is_dns_subdomain(ref.name):
            message = f"{ref.name!r} is not the name of a Secret"
            yield Cause(path=f"{path}.{name}.name", message=message)


def _inline(plain: str, encoded: str, name: str, path: str) -> Iterator[Cause]:
    size = len(plain.encode())
    where = f"{path}.{name}"
    if encoded:
        where += "Base64"
        try:
            size = len(base64.b64decode(encoded.replace("\n", ""), validate=True))
        except (binascii.Error, ValueError):
            yield Cause(path=where, message=f"{where} is not a valid base64 value.")
            return
    if size > INLINE_LIMIT:
        kind = name.lower()
        secret = "UserDataSecretRef" if kind == "userdata" else "NetworkDataSecretRef"
        message = (
            f"{path} {kind} exceeds {INLINE_LIMIT} byte limit. Should use {secret} for larger data."
        )
        yield Cause(path=where, message=message)
