"""Which images a VM needs and what stands behind each volume: decided here from the spec and from where the bytes lie.

Nothing is touched; `prepare` carries the plan out. Guests' writes land in a throw-away overlay (containerDisk, ephemeral),
in a fresh disk (emptyDisk), or in the claim itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from qvirt_crds.quantity import parse_bytes
from qvirt_crds.report import LocalVolume
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_crds.volumes import CloudInit, Volume
from qvirt_launcher import access, cloudinit
from qvirt_launcher.backing import (
    Backing,
    CreateEmpty,
    CreateOverlay,
    CreateSeed,
    CreateSeedFromDirectory,
    DiskPlan,
    Image,
    Step,
)
from qvirt_launcher.errors import PrepareError

_MIB: Final = 1 << 20
_Planned = tuple[tuple[Step, ...], Backing]


def plan_disks(
    vmi: VirtualMachineInstance, volumes: tuple[LocalVolume, ...], directory: str
) -> DiskPlan:
    """The steps that make this VM's images, and the backing of each volume that one of its disks names.

    :param volumes: where containerDisks, claims and Secrets lie on this machine; the formats in it are believed.
    :param directory: where images are made; it belongs to this VM alone and vanishes with it.
    :raise PrepareError: a volume has no place on this machine, or can't be made.
    """
    local = {place.volume: place for place in volumes}
    wanted = {disk.name for disk in vmi.spec.domain.devices.disks}
    planned = [
        _plan(vmi, volume, local, directory) for volume in vmi.spec.volumes if volume.name in wanted
    ]
    return DiskPlan(
        steps=tuple(step for steps, _ in planned for step in steps),
        backings=tuple(backing for _, backing in planned),
    )


def _plan(
    vmi: VirtualMachineInstance, volume: Volume, local: Mapping[str, LocalVolume], directory: str
) -> _Planned:
    path = f"{directory}/{volume.name}"
    if volume.container_disk is not None or volume.ephemeral is not None:
        return _overlay(_place(volume, local), f"{path}.qcow2")
    if volume.persistent_volume_claim is not None:
        return _claim(_place(volume, local), volume.persistent_volume_claim.read_only)
    if volume.empty_disk is not None:
        return _empty(volume.name, parse_bytes(volume.empty_disk.capacity), f"{path}.qcow2")
    if volume.cloud_init_no_cloud is not None:
        make = cloudinit.no_cloud
        return _seed(vmi, volume, volume.cloud_init_no_cloud, make, cloudinit.NO_CLOUD, local, path)
    if volume.cloud_init_config_drive is not None:
        make = cloudinit.config_drive
        data = volume.cloud_init_config_drive
        return _seed(vmi, volume, data, make, cloudinit.CONFIG_DRIVE, local, path)
    raise PrepareError(f"volume {volume.name!r} has no kind that can be turned into a disk")


def _place(volume: Volume, local: Mapping[str, LocalVolume]) -> LocalVolume:
    place = local.get(volume.name)
    if place is None:
        raise PrepareError(
            f"volume {volume.name!r}: nobody said where it lies on this machine; name it in vm-sync's volumes"
        )
    return place


def _overlay(place: LocalVolume, path: str) -> _Planned:
    base = Image(path=place.path, format=place.format)
    backing = Backing(volume=place.volume, image=Image(path=path, format="qcow2"), base=base)
    return (CreateOverlay(path=path, base=base),), backing


def _claim(place: LocalVolume, read_only: bool) -> _Planned:
    image = Image(path=place.path, format=place.format)
    return (), Backing(volume=place.volume, image=image, read_only=read_only or place.read_only)


def _empty(volume: str, size: int, path: str) -> _Planned:
    size -= size % _MIB
    if size <= 0:
        raise PrepareError(f"emptyDisk {volume!r}: the capacity must be at least 1Mi")
    backing = Backing(volume=volume, image=Image(path=path, format="qcow2"))
    return (CreateEmpty(path=path, size=size),), backing


def _seed(
    vmi: VirtualMachineInstance,
    volume: Volume,
    data: CloudInit,
    make: Callable[[VirtualMachineInstance, CloudInit], cloudinit.Seed],
    layout: cloudinit.Layout,
    local: Mapping[str, LocalVolume],
    path: str,
) -> _Planned:
    seed = make(vmi, data)
    iso = f"{path}.iso"
    # Writable, as KubeVirt's: an IDE or SATA disk (which a seed may be plugged in as) can't be read-only.
    backing = Backing(volume=volume.name, image=Image(path=iso, format="raw"))
    method: access.SeedMethod = "noCloud" if layout is cloudinit.NO_CLOUD else "configDrive"
    public_keys = access.by_seed(vmi, local, method)
    if not seed.secret_keys and not public_keys:
        return (CreateSeed(path=iso, volume_id=layout.volume_id, files=seed.files),), backing
    step = CreateSeedFromDirectory(
        path=iso,
        volume_id=layout.volume_id,
        files=seed.files,
        directory=_place(volume, local).path if seed.secret_keys else "",
        keys=seed.secret_keys,
        public_keys=public_keys,
        meta_data=layout.meta_data,
        public_keys_field=layout.public_keys,
    )
    return (step,), backing
