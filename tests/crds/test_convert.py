"""v1alpha1 <-> v1: nothing is lost, edits win over what was kept, and the seed's VM means what it meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from qvirt_crds import stash, v1alpha1
from qvirt_crds.convert import to_v1, to_v1alpha1
from qvirt_crds.names import ONLY_IN_V1, ONLY_IN_V1ALPHA1
from qvirt_crds.vm import VirtualMachine

SEED = Path(__file__).parents[2] / "examples" / "seed-vm.yaml"


def plain(machine: msgspec.Struct) -> Any:
    return msgspec.json.decode(msgspec.json.encode(machine))


def seed() -> v1alpha1.VirtualMachine:
    return msgspec.yaml.decode(SEED.read_bytes(), type=v1alpha1.VirtualMachine)


NAMES = st.sampled_from(["a", "b", "c"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | NAMES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
SLOW = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None
)
NEW = st.from_type(VirtualMachine).map(lambda vm: replace(vm, api_version="kubevirt.io/v1"))


@SLOW
@given(...)
def test_v1alpha1_to_v1_and_back_loses_nothing(old: v1alpha1.VirtualMachine) -> None:
    assert plain(to_v1alpha1(to_v1(old))) == plain(old)


@SLOW
@given(NEW)
def test_v1_to_v1alpha1_and_back_loses_nothing(new: VirtualMachine) -> None:
    assert plain(to_v1(to_v1alpha1(new))) == plain(new)


@SLOW
@given(...)
def test_the_way_there_is_the_same_the_second_time(old: v1alpha1.VirtualMachine) -> None:
    once = to_v1(old)
    assert plain(to_v1(to_v1alpha1(once))) == plain(once)


@SLOW
@given(...)
def test_conversion_touches_no_metadata_but_its_annotation(old: v1alpha1.VirtualMachine) -> None:
    new = to_v1(old)
    kept = {k: v for k, v in new.metadata.annotations.items() if k != ONLY_IN_V1ALPHA1}
    assert replace(new.metadata, annotations=kept) == old.metadata


OBJECTS = st.dictionaries(
    NAMES,
    JSON | st.lists(st.fixed_dictionaries({"name": NAMES}, optional={"v": JSON}), max_size=3),
    max_size=3,
)


@given(OBJECTS, OBJECTS)
def test_restoring_all_differences_gives_the_other(base: Any, full: Any) -> None:
    entries = stash.differences(base, full)
    through_json = msgspec.json.decode(msgspec.json.encode(entries), type=tuple[stash.Entry, ...])
    assert stash.restore(base, through_json) == full


@given(OBJECTS, OBJECTS, OBJECTS)
def test_restoring_onto_anything_never_fails(base: Any, full: Any, other: Any) -> None:
    stash.restore(other, stash.differences(base, full))


# -- the seed's VM ----------------------------------------------------------------------------------------------------


def test_the_seeds_machine_in_v1() -> None:
    new = plain(to_v1(seed()))
    assert new["apiVersion"] == "kubevirt.io/v1"
    assert new["spec"]["runStrategy"] == "Once"
    assert new["spec"]["template"]["spec"] == {
        "terminationGracePeriodSeconds": 5,
        "domain": {
            "resources": {"requests": {"memory": "64M"}},
            "cpu": {"sockets": 1, "cores": 1, "threads": 1},
            "devices": {
                "disks": [
                    {"name": "registryvolume", "disk": {"bus": "virtio"}},
                    {"name": "cloudinitvolume", "disk": {"bus": "virtio"}},
                ]
            },
        },
        "volumes": [
            {
                "name": "registryvolume",
                "containerDisk": {
                    "image": "kubevirt/cirros-registry-disk-demo:devel",
                    "imagePullPolicy": "IfNotPresent",
                },
            },
            {
                "name": "cloudinitvolume",
                "cloudInitNoCloud": {
                    "userData": "ssh-authorized-keys:\n  - ssh-rsa AAAAB3NzaK8L93bWxnyp test@test.com\n"
                },
            },
        ],
    }


def with_spec(machine: VirtualMachine, change: Any) -> VirtualMachine:
    data = plain(machine)
    change(data["spec"]["template"]["spec"])
    return msgspec.convert(data, VirtualMachine)


def test_disk_names_survive_what_a_webhook_fills_in() -> None:
    def fill_in(spec: Any) -> None:
        spec["architecture"] = "amd64"
        spec["domain"]["machine"] = {"type": "q35"}
        spec["domain"]["firmware"] = {"uuid": "u", "serial": "s"}

    old = to_v1alpha1(with_spec(to_v1(seed()), fill_in))
    assert [d.name for d in old.spec.domain.devices.disks] == ["registrydisk", "cloudinitdisk"]
    assert old.spec.domain.cpu is None
    assert old.spec.domain.machine is not None
    assert old.spec.domain.machine.type == "q35"
    again = to_v1(old).spec.template.spec
    assert again.architecture == "amd64"
    assert again.domain.firmware is not None
    assert again.domain.firmware.serial == "s"


def test_an_edit_in_v1_wins_over_the_stash() -> None:
    def edit(spec: Any) -> None:
        spec["domain"]["cpu"]["cores"] = 4
        spec["domain"]["devices"]["disks"].insert(0, {"name": "extra", "disk": {"bus": "scsi"}})
        spec["volumes"].insert(0, {"name": "extra", "emptyDisk": {"capacity": "1Gi"}})

    old = to_v1alpha1(with_spec(to_v1(seed()), edit))
    assert old.spec.domain.cpu == v1alpha1.Cpu(cores=4)
    names = [(d.name, d.volume_name) for d in old.spec.domain.devices.disks]
    assert names == [
        ("extra", "extra"),
        ("registrydisk", "registryvolume"),
        ("cloudinitdisk", "cloudinitvolume"),
    ]


def edited_in_v1alpha1(new: VirtualMachine, change: Any) -> Any:
    """The spec of `new`'s instances after a user has changed it through v1alpha1."""
    old = plain(to_v1alpha1(new))
    change(old["spec"])
    return plain(to_v1(msgspec.convert(old, v1alpha1.VirtualMachine)))["spec"]["template"]["spec"]


def test_an_edit_of_the_cores_in_v1alpha1_wins_over_the_kept_topology() -> None:
    def two_sockets(spec: Any) -> None:
        spec["domain"]["cpu"] = {"sockets": 2, "cores": 2, "model": "Nehalem"}

    new = with_spec(to_v1(seed()), two_sockets)
    assert to_v1alpha1(new).spec.domain.cpu == v1alpha1.Cpu(cores=4)
    spec = edited_in_v1alpha1(new, lambda old: old["domain"].update(cpu={"cores": 3}))
    assert spec["domain"]["cpu"] == {"sockets": 1, "cores": 3, "threads": 1, "model": "Nehalem"}


def test_an_edit_of_a_target_in_v1alpha1_brings_no_second_one_back() -> None:
    def pci(spec: Any) -> None:
        spec["domain"]["devices"]["disks"][0]["disk"]["pciAddress"] = "0000:01:00.0"
        spec["domain"]["devices"]["disks"][0]["cache"] = "none"

    def to_cdrom(old: Any) -> None:
        del old["domain"]["devices"]["disks"][0]["disk"]
        old["domain"]["devices"]["disks"][0]["cdrom"] = {"bus": "sata"}

    spec = edited_in_v1alpha1(with_spec(to_v1(seed()), pci), to_cdrom)
    assert spec["domain"]["devices"]["disks"][0] == {
        "name": "registryvolume",
        "cdrom": {"bus": "sata"},
        "cache": "none",
    }


def test_an_edit_of_a_volume_in_v1alpha1_brings_no_second_source_back() -> None:
    def config_drive(spec: Any) -> None:
        spec["volumes"][1] = {"name": "cloudinitvolume", "cloudInitConfigDrive": {"userData": "x"}}

    def empty_disk(old: Any) -> None:
        old["volumes"][1]["emptyDisk"] = {"capacity": "1Gi"}

    new = with_spec(to_v1(seed()), config_drive)
    spec = edited_in_v1alpha1(new, empty_disk)
    assert spec["volumes"][1] == {"name": "cloudinitvolume", "emptyDisk": {"capacity": "1Gi"}}


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[[]]", '[{"path":["spec"],"value":7}]', '[{"path":[]}]', "[" * 5000],
)
def test_a_forged_annotation_does_no_harm(text: str) -> None:
    old = seed()
    forged = replace(old, metadata=replace(old.metadata, annotations={ONLY_IN_V1: text}))
    assert to_v1(forged).spec == to_v1(old).spec


def test_a_volume_without_a_disk_stays_unattached() -> None:
    old = seed()
    old = replace(
        old, spec=replace(old.spec, volumes=(*old.spec.volumes, v1alpha1.Volume(name="spare")))
    )
    new = to_v1(old)
    assert [v.name for v in new.spec.template.spec.volumes] == ["registryvolume", "cloudinitvolume"]
    assert to_v1alpha1(new) == old
