"""Which images a VM needs: every volume kind, where its bytes go, and what its seed says."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_crds.report import LocalVolume
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.backing import (
    Backing,
    CreateEmpty,
    CreateOverlay,
    CreateSeed,
    CreateSeedFromDirectory,
    DiskPlan,
    Image,
)
from qvirt_launcher.cloudinit import hostname
from qvirt_launcher.disks import plan_disks
from qvirt_launcher.errors import PrepareError

UUID = "5d307ca9-b3ef-428c-8861-06e72d69f223"
MIB = 1 << 20


def vmi(*volumes: Mapping[str, object], disks: list[str] | None = None) -> VirtualMachineInstance:
    names = [str(v["name"]) for v in volumes] if disks is None else disks
    return msgspec.convert(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "domain": {
                    "firmware": {"uuid": UUID},
                    "devices": {"disks": [{"name": n, "disk": {"bus": "virtio"}} for n in names]},
                },
                "volumes": list(volumes),
            },
        },
        VirtualMachineInstance,
    )


def plan(*volumes: Mapping[str, object], local: tuple[LocalVolume, ...] = ()) -> DiskPlan:
    return plan_disks(vmi(*volumes), local, "/run/x/disks")


def only(planned: DiskPlan) -> Backing:
    (backing,) = planned.backings
    return backing


def decoded(files: dict[str, str]) -> dict[str, bytes]:
    return {name: base64.b64decode(data) for name, data in files.items()}


def test_a_container_disk_is_written_to_in_an_overlay() -> None:
    place = LocalVolume(volume="root", path="/cache/root.qcow2", format="qcow2")
    planned = plan({"name": "root", "containerDisk": {"image": "x"}}, local=(place,))
    base = Image(path="/cache/root.qcow2", format="qcow2")
    assert planned.steps == (CreateOverlay(path="/run/x/disks/root.qcow2", base=base),)
    assert only(planned) == Backing(
        volume="root", image=Image(path="/run/x/disks/root.qcow2", format="qcow2"), base=base
    )


def test_an_ephemeral_claim_is_not_written_to() -> None:
    volume = {"name": "e", "ephemeral": {"persistentVolumeClaim": {"claimName": "c"}}}
    planned = plan(volume, local=(LocalVolume(volume="e", path="/dev/sdz"),))
    assert only(planned).base == Image(path="/dev/sdz", format="raw")


@pytest.mark.parametrize(
    ("claim", "place", "read_only"),
    [(False, False, False), (True, False, True), (False, True, True)],
)
def test_a_claim_is_used_as_it_is(claim: bool, place: bool, read_only: bool) -> None:
    volume = {"name": "d", "persistentVolumeClaim": {"claimName": "c", "readOnly": claim}}
    local = LocalVolume(volume="d", path="/data/disk.img", read_only=place)
    planned = plan(volume, local=(local,))
    assert planned.steps == ()
    assert only(planned).image == Image(path="/data/disk.img", format="raw")
    assert only(planned).read_only is read_only


@pytest.mark.parametrize(("capacity", "size"), [("1Gi", 1 << 30), ("3000k", 2 * MIB), ("1Mi", MIB)])
def test_an_empty_disk_has_whole_mebibytes(capacity: str, size: int) -> None:
    planned = plan({"name": "s", "emptyDisk": {"capacity": capacity}})
    assert planned.steps == (CreateEmpty(path="/run/x/disks/s.qcow2", size=size),)


def test_an_empty_disk_of_nothing_is_refused() -> None:
    with pytest.raises(PrepareError, match="1Mi"):
        plan({"name": "s", "emptyDisk": {"capacity": "1000k"}})


def test_a_volume_without_a_place_is_refused() -> None:
    with pytest.raises(PrepareError, match=r"'root'.*vm-sync"):
        plan({"name": "root", "containerDisk": {"image": "x"}})


def test_a_volume_that_no_disk_names_is_not_made() -> None:
    spec = vmi({"name": "s", "emptyDisk": {"capacity": "1Mi"}}, disks=[])
    assert plan_disks(spec, (), "/d") == DiskPlan()


def test_no_cloud_says_who_the_guest_is() -> None:
    planned = plan({"name": "ci", "cloudInitNoCloud": {"userData": "#cloud-config\nä: 1\n"}})
    (step,) = planned.steps
    assert isinstance(step, CreateSeed)
    assert (step.volume_id, step.path) == ("cidata", "/run/x/disks/ci.iso")
    files = decoded(step.files)
    assert json.loads(files["meta-data"]) == {"instance-id": UUID, "local-hostname": "web"}
    assert files["user-data"].decode() == "#cloud-config\nä: 1\n"
    assert "network-config" not in files
    assert only(planned).image == Image(path="/run/x/disks/ci.iso", format="raw")


def test_no_cloud_always_has_user_data() -> None:
    (step,) = plan({"name": "ci", "cloudInitNoCloud": {"networkData": "version: 2"}}).steps
    assert isinstance(step, CreateSeed)
    assert decoded(step.files)["user-data"] == b""
    assert decoded(step.files)["network-config"] == b"version: 2"


def test_base64_is_passed_on_as_it_is() -> None:
    data = base64.b64encode(b"\x00\xff").decode()
    (step,) = plan(
        {"name": "ci", "cloudInitNoCloud": {"userDataBase64": data, "networkDataBase64": data}}
    ).steps
    assert isinstance(step, CreateSeed)
    assert decoded(step.files)["user-data"] == b"\x00\xff"
    assert decoded(step.files)["network-config"] == b"\x00\xff"


def test_config_drive_is_openstacks() -> None:
    source = {"userData": "x", "networkData": "{}"}
    (step,) = plan({"name": "ci", "cloudInitConfigDrive": source}).steps
    assert isinstance(step, CreateSeed)
    assert step.volume_id == "config-2"
    files = decoded(step.files)
    assert json.loads(files["openstack/latest/meta_data.json"]) == {
        "instance_id": "web.shop",
        "hostname": "web",
        "uuid": UUID,
    }
    assert files["openstack/latest/user_data"] == b"x"
    assert files["openstack/latest/network_data.json"] == b"{}"


def test_secrets_are_read_later_from_their_directory() -> None:
    source = {"secretRef": {"name": "a"}, "networkDataSecretRef": {"name": "b"}}
    place = LocalVolume(volume="ci", path="/run/x/secrets/ci")
    (step,) = plan({"name": "ci", "cloudInitNoCloud": source}, local=(place,)).steps
    assert isinstance(step, CreateSeedFromDirectory)
    assert step.directory == "/run/x/secrets/ci"
    assert set(step.files) == {"meta-data"}
    assert step.keys == {
        "user-data": ("userdata", "userData"),
        "network-config": ("networkdata", "networkData"),
    }


def test_plain_user_data_beside_a_secret_for_the_network() -> None:
    source = {"userData": "x", "networkDataSecretRef": {"name": "b"}}
    place = LocalVolume(volume="ci", path="/s")
    (step,) = plan({"name": "ci", "cloudInitNoCloud": source}, local=(place,)).steps
    assert isinstance(step, CreateSeedFromDirectory)
    assert decoded(step.files)["user-data"] == b"x"
    assert set(step.keys) == {"network-config"}


@pytest.mark.parametrize(
    ("given_name", "name", "expected"),
    [
        ("", "web", "web"),
        ("shop", "web", "shop"),
        ("", "web.example", "web"),
        ("", "a" * 70, "a" * 63),
        ("", "a" * 62 + "-b", "a" * 62),
    ],
)
def test_host_names(given_name: str, name: str, expected: str) -> None:
    spec = vmi()
    spec = msgspec.structs.replace(
        spec,
        metadata=msgspec.structs.replace(spec.metadata, name=name),
        spec=msgspec.structs.replace(spec.spec, hostname=given_name),
    )
    assert hostname(spec) == expected


@given(st.text(), st.text())
def test_whatever_is_written_arrives(user: str, network: str) -> None:
    source = {"userData": user, "networkData": network}
    (step,) = plan({"name": "ci", "cloudInitNoCloud": source}).steps
    assert isinstance(step, CreateSeed)
    assert decoded(step.files)["user-data"].decode() == user
    assert decoded(step.files).get("network-config", b"").decode() == network
