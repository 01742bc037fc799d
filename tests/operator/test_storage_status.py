"""What clients are told of volumes, and of moving the guest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_operator import migratability
from qvirt_operator.volume_status import letters, volume_status

Object = dict[str, Any]


def instance(disks: list[Object], volumes: list[Object], **metadata: Any) -> VirtualMachineInstance:
    body = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "x", **metadata},
        "spec": {"domain": {"devices": {"disks": disks}}, "volumes": volumes},
    }
    vmi = msgspec.convert(body, VirtualMachineInstance)
    return apply_defaults(vmi, new_uuid=lambda: "u")


def claim(name: str, *modes: str) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {
            "accessModes": list(modes),
            "volumeMode": "Filesystem",
            "resources": {"requests": {"storage": "1Gi"}},
        },
        "status": {"capacity": {"storage": "2Gi"}, "accessModes": list(modes)},
    }


EMPTY: Object = {"emptyDisk": {"capacity": "1Mi"}}
ON_CLAIM: Object = {"persistentVolumeClaim": {"claimName": "c"}}


def test_targets_follow_the_order_of_the_disks() -> None:
    disks = [
        {"name": "a", "disk": {"bus": "virtio"}},
        {"name": "b", "disk": {"bus": "scsi"}},
        {"name": "c", "disk": {"bus": "virtio"}},
        {"name": "d", "cdrom": {"bus": "sata"}},
    ]
    volumes = [{"name": name, **EMPTY} for name in "edcba"]
    found = volume_status(instance(disks, volumes), {})
    targets = [(entry["name"], entry["target"]) for entry in found]
    # The one that no disk names comes last, on SATA.
    assert targets == [("a", "vda"), ("b", "sda"), ("c", "vdb"), ("d", "sdb"), ("e", "sdc")]


def test_letters() -> None:
    assert [letters(n) for n in (0, 25, 26, 51, 52, 701, 702)] == ["a", "z", "aa", "az", "ba", "zz", "aaa"]  # fmt: skip


def test_a_claims_size_is_told() -> None:
    vmi = instance([], [{"name": "root", **ON_CLAIM}])
    (entry,) = volume_status(vmi, {"c": claim("c", "ReadWriteOnce")})
    assert entry["persistentVolumeClaimInfo"] == {
        "claimName": "c",
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "capacity": {"storage": "2Gi"},
        "requests": {"storage": "1Gi"},
        "filesystemOverhead": "0.055",
    }
    (entry,) = volume_status(vmi, {})
    assert entry == {"name": "root", "target": "sda"}


MOVES = [
    # volumes, annotations, the claim's access modes, reason, method
    ([], {}, (), "InterfaceNotLiveMigratable", "LiveMigration"),
    ([], {migratability.ALLOW_BRIDGE: ""}, (), "LiveMigrationNotImplemented", "LiveMigration"),
    ([ON_CLAIM], {migratability.ALLOW_BRIDGE: ""}, ("ReadWriteOnce",), "DisksNotLiveMigratable", "BlockMigration"),
    ([ON_CLAIM], {migratability.ALLOW_BRIDGE: ""}, ("ReadWriteMany",), "LiveMigrationNotImplemented", "LiveMigration"),
    ([EMPTY], {migratability.ALLOW_BRIDGE: ""}, (), "LiveMigrationNotImplemented", "BlockMigration"),
]  # fmt: skip


@pytest.mark.parametrize(("volumes", "annotations", "modes", "reason", "method"), MOVES)
def test_moving(
    volumes: list[Object], annotations: dict[str, str], modes: tuple[str, ...], reason: str, method: str
) -> None:  # fmt: skip
    named = [{"name": f"v{i}", **volume} for i, volume in enumerate(volumes)]
    vmi = instance([], named, annotations=annotations)
    claims = {"c": claim("c", *modes)}
    live, storage = migratability.conditions(vmi, claims)
    assert (live.type, live.status, live.reason) == ("LiveMigratable", "False", reason)
    assert (storage.type, storage.status, storage.reason) == (
        "StorageLiveMigratable",
        "False",
        "NotMigratable",
    )
    assert "DisksNotLiveMigratable" not in storage.message
    assert migratability.method(vmi, claims) == method


def test_a_read_only_cdrom_is_not_copied() -> None:
    disks = [{"name": "v", "cdrom": {}}]
    volume = {"name": "v", "containerDisk": {"image": "i"}}
    assert migratability.method(instance(disks, [volume]), {}) == "LiveMigration"
