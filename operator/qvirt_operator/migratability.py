"""Whether a guest could move to another node, and why not (pure; reference: KubeVirt's, section 3.3).

qvirt moves no guests yet: what stands in the way in KubeVirt is told first, as it would stay in the way, and then that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from qvirt_crds.default_devices import Target, target_of
from qvirt_crds.devices import CdromTarget, DiskTarget
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_operator.conditions import condition
from qvirt_operator.views import Condition, Object

#: An instance's word that its guest survives a change of its address.
ALLOW_BRIDGE: Final = "kubevirt.io/allow-pod-bridge-network-live-migration"
_INTERFACE: Final = (
    "InterfaceNotLiveMigratable",
    "cannot migrate VMI which does not use masquerade or a migratable plugin to connect to the pod network",
)
_NOT_YET: Final = ("LiveMigrationNotImplemented", "qvirt does not implement live migration yet")
Reason = tuple[str, str]


def conditions(
    vmi: VirtualMachineInstance, claims: Mapping[str, Object]
) -> tuple[Condition, Condition]:
    """``LiveMigratable`` and ``StorageLiveMigratable``."""
    interfaces = list(_interfaces(vmi))
    reason, message = [*interfaces, *_disks(vmi, claims), _NOT_YET][0]
    storage = ", ".join(f"{word}: {text}" for word, text in (*interfaces, _NOT_YET))
    return (
        condition("LiveMigratable", False, reason, message),
        condition("StorageLiveMigratable", False, "NotMigratable", storage),
    )


def method(vmi: VirtualMachineInstance, claims: Mapping[str, Object]) -> str:
    """``status.migrationMethod``: BlockMigration where some disk would have to be copied."""
    written = {
        disk.name for disk in vmi.spec.domain.devices.disks if not _is_read_only(target_of(disk))
    }
    for volume in vmi.spec.volumes:
        claim = volume.persistent_volume_claim
        copied = not _is_shared(claims.get(claim.claim_name)) if claim else volume.name in written
        if copied:
            return "BlockMigration"
    return "LiveMigration"


def _interfaces(vmi: VirtualMachineInstance) -> Iterator[Reason]:
    pods = {network.name for network in vmi.spec.networks if network.pod}
    for card in vmi.spec.domain.devices.interfaces:
        if card.name in pods and card.bridge and ALLOW_BRIDGE not in vmi.metadata.annotations:
            yield _INTERFACE


def _disks(vmi: VirtualMachineInstance, claims: Mapping[str, Object]) -> Iterator[Reason]:
    for volume in vmi.spec.volumes:
        claim = volume.persistent_volume_claim
        if claim and not _is_shared(claims.get(claim.claim_name)):
            message = f"cannot migrate VMI: PVC {claim.claim_name} is not shared, live migration requires that all PVCs must be shared (using ReadWriteMany access mode)"
            yield "DisksNotLiveMigratable", message


def _is_shared(claim: Object | None) -> bool:
    spec = (claim or {}).get("spec") or {}
    return "ReadWriteMany" in (spec.get("accessModes") or ())


def _is_read_only(target: Target) -> bool:
    match target:
        case CdromTarget(readonly=readonly):
            return readonly is not False
        case DiskTarget(readonly=readonly):
            return readonly is True
        case _:
            return False
