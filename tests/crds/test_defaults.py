"""Every default is the one that docs/defaults.md names, and nothing else changes."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.defaults_table import DEFAULTS, UNSET, Default
from qvirt_crds.vm import VirtualMachineInstance

UUID = "1c5a4bd5-0b5c-4d4e-8a1f-7c0f6b1f0a51"
MINIMAL: dict[str, Any] = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachineInstance",
    "metadata": {"name": "x"},
    "spec": {"domain": {"devices": {}}},
}
SLOW = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None
)


def merged(base: Any, more: Any) -> Any:
    if isinstance(base, dict) and isinstance(more, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in more.items()}}
    return more


def plain(vmi: VirtualMachineInstance) -> Any:
    return msgspec.json.decode(msgspec.json.encode(vmi))


def defaulted(manifest: Any) -> VirtualMachineInstance:
    vmi = msgspec.convert(manifest, VirtualMachineInstance)
    return apply_defaults(vmi, new_uuid=lambda: UUID)


def at(data: Any, path: str) -> Any:
    for step in re.findall(r"[^.\[\]]+", path):
        data = data[int(step)] if isinstance(data, list) else data.get(step)
        if data is None:
            return None
    return data


@pytest.mark.parametrize("rule", DEFAULTS, ids=lambda rule: f"{rule.path}={rule.value}")
def test_each_line_of_the_table_is_true(rule: Default) -> None:
    manifest = merged(MINIMAL, rule.given)
    assert at(manifest, rule.path) is None
    expected = UUID if rule.value == "(a new UUID)" else rule.value
    assert at(plain(defaulted(manifest)), rule.path) == expected


@pytest.mark.parametrize("row", UNSET, ids=lambda row: row.path)
def test_what_the_table_calls_unset_stays_unset(row: Any) -> None:
    manifest = merged(
        MINIMAL, {"spec": {"volumes": [{"name": "d", "emptyDisk": {"capacity": "1Gi"}}]}}
    )
    assert at(plain(defaulted(manifest)), row.path.replace("[]", "[0]")) is None


def changes(before: Any, after: Any, path: str = "") -> list[str]:
    """Paths, with [] for indices, of all that `after` says and `before` does not."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            c
            for key in after
            for c in changes(before.get(key), after[key], f"{path}.{key}" if path else key)
        ]
    if isinstance(before, list) and isinstance(after, list):
        pairs = zip([*before, *[None] * (len(after) - len(before))], after, strict=True)
        return [c for b, a in pairs for c in changes(b, a, f"{path}[]")]
    if before == after:
        return []
    if isinstance(after, dict) and after:
        return [c for key in after for c in changes(None, after[key], f"{path}.{key}")]
    if isinstance(after, list):
        return [c for a in after for c in changes(None, a, f"{path}[]")]
    return [path]


def in_the_table(path: str) -> bool:
    rows = {re.sub(r"\[[0-9]+\]", "[]", rule.path) for rule in DEFAULTS}
    #: One row of the table stands for each timer, feature and Hyper-V feature.
    wider = [
        r"spec\.domain\.clock\.timer\.\w+\.present",
        r"spec\.domain\.features\.(\w+\.)?\w+\.enabled",
    ]
    return any(path == row or path.startswith(f"{row}.") for row in rows) or any(
        re.fullmatch(pattern, path) for pattern in wider
    )


@SLOW
@given(...)
def test_nothing_else_is_changed(vmi: VirtualMachineInstance) -> None:
    after = apply_defaults(vmi, new_uuid=lambda: UUID)
    assert [c for c in changes(plain(vmi), plain(after)) if not in_the_table(c)] == []


@SLOW
@given(...)
def test_applying_twice_is_applying_once(vmi: VirtualMachineInstance) -> None:
    once = apply_defaults(vmi, new_uuid=lambda: UUID)
    assert apply_defaults(once, new_uuid=lambda: "another") == once


@SLOW
@given(...)
def test_what_others_rely_on_is_there(vmi: VirtualMachineInstance) -> None:
    spec = apply_defaults(vmi, new_uuid=lambda: UUID).spec
    domain = spec.domain
    assert domain.machine is not None
    assert domain.machine.type
    assert domain.firmware is not None
    assert domain.firmware.uuid
    assert domain.cpu is not None
    assert None not in (domain.cpu.sockets, domain.cpu.cores, domain.cpu.threads)
    assert domain.features is not None
    assert domain.features.acpi is not None
    assert {v.name for v in spec.volumes} <= {d.name for d in domain.devices.disks}
    for disk in domain.devices.disks:
        targets = [t for t in (disk.disk, disk.lun, disk.cdrom) if t]
        assert targets or disk.floppy
        assert disk.floppy or targets[0].bus
    assert all(interface.model for interface in domain.devices.interfaces)


def test_a_declined_pod_network_is_not_given() -> None:
    declined = {"spec": {"domain": {"devices": {"autoattachPodInterface": False}}}}
    spec = defaulted(merged(MINIMAL, declined)).spec
    assert spec.networks == ()
    assert spec.domain.devices.interfaces == ()


def test_disks_of_volumes_come_after_those_that_are_named() -> None:
    given_disks = {
        "spec": {
            "domain": {"devices": {"disks": [{"name": "b", "disk": {"bus": "virtio"}}]}},
            "volumes": [
                {"name": "a", "emptyDisk": {"capacity": "1Gi"}},
                {"name": "b", "emptyDisk": {"capacity": "1Gi"}},
            ],
        }
    }
    disks = plain(defaulted(merged(MINIMAL, given_disks)))["spec"]["domain"]["devices"]["disks"]
    assert disks == [
        {"name": "b", "disk": {"bus": "virtio"}},
        {"name": "a", "disk": {"bus": "sata"}},
    ]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("disk", "Always"),
        ("disk:latest", "Always"),
        ("disk:v1", "IfNotPresent"),
        ("registry:5000/disk", "Always"),
        ("registry:5000/disk:v1", "IfNotPresent"),
        ("registry:5000/disk@sha256:0123", "IfNotPresent"),
        ("disk:latest@sha256:0123", "IfNotPresent"),
    ],
)
def test_pull_policy(image: str, policy: str) -> None:
    volumes = {"spec": {"volumes": [{"name": "a", "containerDisk": {"image": image}}]}}
    (volume,) = defaulted(merged(MINIMAL, volumes)).spec.volumes
    assert volume.container_disk is not None
    assert volume.container_disk.image_pull_policy == policy
