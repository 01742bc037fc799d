"""A real API server calls virt-api: what is written, what is refused, what is defaulted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.api.bad_manifests import BAD, instance, machine, replica_set
from tests.api.conftest import ROOT, VirtApi, kubectl
from tests.control_plane import ApiServer

from qvirt_kube.client import Kube
from qvirt_kube.errors import NotFound, Refused

Object = dict[str, Any]

_GROUP = "/apis/kubevirt.io"
_SEED = ROOT / "examples" / "seed-vm.yaml"


def path(namespace: str, kind: str, name: str = "", version: str = "v1") -> str:
    where = f"{_GROUP}/{version}/namespaces/{namespace}/{kind}s"
    return f"{where}/{name}" if name else where


async def test_bad_manifests(
    api_server: ApiServer, virt_api: VirtApi, kube: Kube, namespace: str
) -> None:
    """What kubectl shows names the field and the reason, and nothing is stored."""
    missed = []
    for bad in BAD:
        try:
            await kubectl(
                api_server, "create", "-n", namespace, "-f", "-", stdin=json.dumps(bad.manifest)
            )
            missed.append(f"{bad.name}: created")
        except AssertionError as error:
            expected = (
                f"{bad.path}: {bad.message}" if bad.path else f"denied the request: {bad.message}"
            )
            if expected not in str(error):
                missed.append(f"{bad.name}: {error}")
    assert not missed, "\n".join(missed)
    for kind in ("virtualmachine", "virtualmachineinstance", "virtualmachineinstancereplicaset"):
        assert (await kube.get(path(namespace, kind)))["items"] == []


async def test_good_ones_are_created(virt_api: VirtApi, user: Kube, namespace: str) -> None:
    for manifest in (machine(), instance(), replica_set({"app": "bad"})):
        await user.create(path(namespace, manifest["kind"].lower()), manifest)


async def test_an_instance_shows_its_defaults(
    virt_api: VirtApi, user: Kube, namespace: str
) -> None:
    manifest = {
        "apiVersion": "kubevirt.io/v1alpha3",
        "kind": "VirtualMachineInstance",
        "metadata": {"generateName": "some-"},
        "spec": {
            "domain": {"memory": {"guest": "64M"}, "devices": {}, "cpu": {"cores": 2}},
            "volumes": [{"name": "root", "containerDisk": {"image": "registry.example/guest:1"}}],
        },
        "status": {"phase": "Running", "nodeName": "forged"},
    }
    where = path(namespace, "virtualmachineinstance", version="v1alpha3")
    created = await user.create(where, manifest)
    spec, domain = created["spec"], created["spec"]["domain"]
    assert created["metadata"]["finalizers"] == ["kubevirt.io/foregroundDeleteVirtualMachine"]
    assert domain["cpu"] == {"cores": 2, "sockets": 1, "threads": 1, "model": "host-model"}
    assert domain["machine"] == {"type": "q35"}
    assert len(domain["firmware"]["uuid"]) == 36
    assert domain["devices"]["disks"] == [{"name": "root", "disk": {"bus": "sata"}}]
    assert spec["networks"] == [{"name": "default", "pod": {}}]
    assert spec["volumes"][0]["containerDisk"]["imagePullPolicy"] == "IfNotPresent"
    assert created["status"]["phase"] == "Pending"
    assert "nodeName" not in created["status"]


async def test_a_machine_gets_what_it_keeps_over_all_starts(
    api_server: ApiServer, virt_api: VirtApi, user: Kube, namespace: str
) -> None:
    created = await user.create(path(namespace, "virtualmachine"), machine())
    inner = created["spec"]["template"]["spec"]
    firmware = inner["domain"]["firmware"]
    assert (inner["architecture"], inner["domain"]["machine"]) == ("amd64", {"type": "q35"})
    assert "cpu" not in inner["domain"]
    # A whole new manifest without an identity does not make another machine of it.
    again = {
        **machine(),
        "metadata": {"name": "bad", "resourceVersion": created["metadata"]["resourceVersion"]},
    }
    replaced = await user.replace(path(namespace, "virtualmachine", "bad"), again)
    assert replaced["spec"]["template"]["spec"]["domain"]["firmware"] == firmware


async def test_dry_run_writes_nothing(
    api_server: ApiServer, virt_api: VirtApi, kube: Kube, namespace: str
) -> None:
    created = await kube.create(path(namespace, "virtualmachineinstance"), instance(), dryRun="All")
    assert created["spec"]["domain"]["machine"] == {"type": "q35"}
    with pytest.raises(Refused, match="not found"):
        await kube.create(path(namespace, "virtualmachine"), BAD[0].manifest, dryRun="All")
    with pytest.raises(NotFound):
        await kube.get(path(namespace, "virtualmachineinstance", "bad"))


async def test_only_our_own_parts_write_spec_and_status_of_instances(
    virt_api: VirtApi, user: Kube, controller: Kube, namespace: str
) -> None:
    where = path(namespace, "virtualmachineinstance", "bad")
    created = await user.create(path(namespace, "virtualmachineinstance"), instance())
    memory = {"spec": {"domain": {"memory": {"guest": "128M"}}}}
    with pytest.raises(Refused, match="update of VMI object is restricted"):
        await user.patch(where, memory)
    labels = {"metadata": {"labels": {"kubevirt.io/nodeName": "elsewhere"}}}
    with pytest.raises(Refused, match="modification of the following reserved"):
        await user.patch(where, labels)

    ours = await controller.patch(where, {"status": {"phase": "Scheduling", "nodeName": "here"}})
    assert ours["status"]["nodeName"] == "here"
    changed = await user.patch(
        where,
        {"status": {"phase": "Failed", "nodeName": None}, "metadata": {"labels": {"mine": "yes"}}},
    )
    assert changed["status"] == ours["status"]
    assert changed["metadata"]["labels"] == {"mine": "yes"}
    assert changed["spec"] == created["spec"]


async def test_v1alpha1_is_stored_as_v1_and_read_back(
    api_server: ApiServer, virt_api: VirtApi, kube: Kube, namespace: str
) -> None:
    await kubectl(api_server, "apply", "-n", namespace, "-f", str(_SEED))
    new = await kube.get(path(namespace, "virtualmachine", "myvm"))
    assert new["spec"]["runStrategy"] == "Once"
    assert "containerDisk" in new["spec"]["template"]["spec"]["volumes"][0]
    old = await kube.get(path(namespace, "virtualmachine", "myvm", "v1alpha1"))
    applied = json.loads(
        old["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    )
    spec = old["spec"]
    assert spec["domain"].pop("machine") == {"type": "q35"}
    assert len(spec["domain"].pop("firmware")["uuid"]) == 36
    assert spec == applied["spec"]
    again = await kubectl(api_server, "apply", "-n", namespace, "-f", str(_SEED))
    assert again.endswith("unchanged\n")


async def test_lists_of_both_versions(
    virt_api: VirtApi, kube: Kube, user: Kube, namespace: str
) -> None:
    for number in range(3):
        manifest = {**machine(), "metadata": {"name": f"vm-{number}"}}
        await user.create(path(namespace, "virtualmachine"), manifest)
    for version in ("v1", "v1alpha3", "v1alpha1"):
        listed = await kube.get(path(namespace, "virtualmachine", version=version))
        assert [item["apiVersion"] for item in listed["items"]] == [f"kubevirt.io/{version}"] * 3


async def test_a_change_made_through_v1alpha1(
    api_server: ApiServer, virt_api: VirtApi, kube: Kube, namespace: str
) -> None:
    await kubectl(api_server, "apply", "-n", namespace, "-f", str(_SEED))
    where = path(namespace, "virtualmachine", "myvm", "v1alpha1")
    await kube.patch(where, {"spec": {"terminationGracePeriodSeconds": 7}})
    new = await kube.get(path(namespace, "virtualmachine", "myvm"))
    assert new["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 7
    await kube.patch(path(namespace, "virtualmachine", "myvm"), {"spec": {"runStrategy": "Halted"}})
    old = await kube.get(where)
    assert old["spec"]["terminationGracePeriodSeconds"] == 7
    assert (await kube.get(path(namespace, "virtualmachine", "myvm")))["spec"][
        "runStrategy"
    ] == "Halted"
