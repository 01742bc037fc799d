"""``status.volumeStatus`` of an instance (pure; reference: KubeVirt's, sections 3.4 and 7.10)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from qvirt_crds import pod_layout
from qvirt_crds.default_devices import target_of
from qvirt_crds.devices import CdromTarget, Disk, DiskTarget, FloppyTarget, LunTarget
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_operator.views import Object

#: What KubeVirt reckons a file system on a claim to take of it, where nobody says otherwise.
_FILESYSTEM_OVERHEAD: Final = "0.055"


def volume_status(vmi: VirtualMachineInstance, claims: Mapping[str, Object]) -> list[Object]:
    """One entry for each volume, sorted by name.

    :param vmi: defaulted.
    :param claims: the claims that are there, by name, as the API server has them.
    """
    targets = {disk.name: target for disk, target in _targets(vmi)}
    found = []
    for volume in sorted(vmi.spec.volumes, key=lambda volume: volume.name):
        entry: Object = {"name": volume.name, "target": targets.get(volume.name, "")}
        claim = pod_layout.claim_of(volume)
        if claim is not None and claim.claim_name in claims:
            entry["persistentVolumeClaimInfo"] = claim_info(claims[claim.claim_name])
        found.append(entry)
    return found


def claim_info(claim: Object) -> Object:
    """What is told of a claim."""
    spec, status = claim.get("spec") or {}, claim.get("status") or {}
    info: Object = {
        "claimName": claim["metadata"]["name"],
        "accessModes": status.get("accessModes") or spec.get("accessModes") or [],
        "volumeMode": spec.get("volumeMode") or "Filesystem",
        "capacity": status.get("capacity") or {},
        "requests": (spec.get("resources") or {}).get("requests") or {},
        "filesystemOverhead": _FILESYSTEM_OVERHEAD,
    }
    return {key: value for key, value in info.items() if value}


def _targets(vmi: VirtualMachineInstance) -> Iterator[tuple[Disk, str]]:
    """The names that a Linux guest gives its drives, by the order of the disks: one alphabet for each kind of name."""
    counts: dict[str, int] = {}
    for disk in vmi.spec.domain.devices.disks:
        prefix = _prefix(disk)
        number = counts.get(prefix, 0)
        counts[prefix] = number + 1
        yield disk, prefix + letters(number)


def _prefix(disk: Disk) -> str:
    match target_of(disk):
        case FloppyTarget():
            return "fd"
        case DiskTarget(bus="virtio") | CdromTarget(bus="virtio") | LunTarget(bus="virtio"):
            return "vd"
        case _:
            return "sd"


def letters(number: int) -> str:
    """0: a, 25: z, 26: aa, as the kernel counts."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text
