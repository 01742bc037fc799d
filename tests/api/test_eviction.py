"""Evictions: the table of strategies, and a real API server that asks before it evicts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.conftest import CONTROLLER, VirtApi
from tests.control_plane import ApiServer

from qvirt_api.decide_eviction import ALLOWED, decide_eviction, instance_of
from qvirt_kube.client import Kube
from qvirt_kube.errors import NotFound, Unavailable

Object = dict[str, Any]


def pod(vmi_uid: str = "u", **metadata: Any) -> Object:
    return {
        "metadata": {
            "name": "virt-launcher-x-abcde",
            "labels": {"kubevirt.io": "virt-launcher"},
            "annotations": {"kubevirt.io/domain": "x"},
            "ownerReferences": [{"uid": vmi_uid}],
            **metadata,
        },
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running"},
    }


def vmi(strategy: str | None = None, *, migratable: str = "False", **status: Any) -> Object:
    condition = {"type": "LiveMigratable", "status": migratable}
    return {
        "metadata": {"name": "x", "namespace": "n", "uid": "u"},
        "spec": {"evictionStrategy": strategy} if strategy else {},
        "status": {"phase": "Running", "nodeName": "n1", "conditions": [condition], **status},
    }


STUCK = "VMI x is configured with an eviction strategy but is not live-migratable"
MOVED = 'Eviction triggered evacuation of VMI "n/x"'
TABLE = [
    (vmi(), "None", "", ""),
    (vmi("None", migratable="True"), "LiveMigrate", "", ""),
    (vmi(), "LiveMigrate", STUCK, ""),
    (vmi("LiveMigrate"), "None", STUCK, ""),
    (vmi("LiveMigrate", migratable="True"), "None", MOVED, "n1"),
    (vmi("LiveMigrateIfPossible"), "None", "", ""),
    (vmi("LiveMigrateIfPossible", migratable="True"), "None", MOVED, "n1"),
    (vmi("External"), "None", MOVED, "n1"),
    (vmi("External", evacuationNodeName="n1"), "None", f"Evacuation in progress: {MOVED}", ""),
    (vmi("External", evacuationNodeName="n0"), "None", MOVED, "n1"),
    (vmi("External", phase="Failed"), "None", "", ""),
    (vmi("LiveMigrate", phase="Scheduling", conditions=[]), "None", STUCK, ""),
]


@pytest.mark.parametrize(("found", "default", "denial", "mark"), TABLE)
def test_the_table(found: Object, default: Any, denial: str, mark: str) -> None:
    verdict = decide_eviction(pod(), found, default)
    assert (verdict.denial, verdict.mark) == (denial, mark)


def test_somebody_elses_pod_is_none_of_ours() -> None:
    assert decide_eviction(pod("other"), vmi("LiveMigrate"), "None") == ALLOWED
    assert instance_of(pod()) == "x"
    assert instance_of(pod(labels={"kubevirt.io": "virt-handler"})) == ""
    assert instance_of(pod(annotations=None)) == ""
    assert instance_of(pod(deletionTimestamp="2026-01-01T00:00:00Z")) == ""
    assert instance_of({**pod(), "status": {"phase": "Succeeded"}}) == ""


async def evict(kube: Kube, namespace: str, name: str, **options: Any) -> None:
    body = {
        "apiVersion": "policy/v1beta1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        **options,
    }
    await kube.create(f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body)


async def make(kube: Kube, api_server: ApiServer, namespace: str, strategy: str) -> str:
    """An instance that runs, with its pod; the pod's name."""
    vmis = f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances"
    body = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "x"},
        "spec": {
            "domain": {"devices": {}, "memory": {"guest": "64Mi"}},
            "evictionStrategy": strategy,
        },
    }
    made = await kube.create(vmis, body)
    owner = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "name": "x",
        "uid": made["metadata"]["uid"],
    }
    metadata = {**pod()["metadata"], "ownerReferences": [owner]}
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
    pods = f"/api/v1/namespaces/{namespace}/pods"
    await kube.create(pods, {"metadata": metadata, "spec": spec})
    # A pod that is pending is evicted without asking its budget; ours is asked for any.
    await kube.patch(
        f"{pods}/{metadata['name']}/status", {"status": {"phase": "Running"}}, "strategic"
    )
    async with Kube(api_server.kubeconfig(CONTROLLER)) as controller:
        await controller.patch(
            f"{vmis}/x", {"status": {"phase": "Running", "nodeName": "n1", "conditions": []}}
        )
    return str(metadata["name"])


@pytest.mark.parametrize("strategy", ["LiveMigrate", "External", "LiveMigrateIfPossible", "None"])
async def test_the_api_server_asks(
    virt_api: VirtApi, kube: Kube, api_server: ApiServer, namespace: str, strategy: str
) -> None:
    name = await make(kube, api_server, namespace, strategy)
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    found = f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/x"
    if strategy in ("None", "LiveMigrateIfPossible"):
        await evict(kube, namespace, name, deleteOptions={"gracePeriodSeconds": 0})
        with pytest.raises(NotFound):
            await kube.get(path)
        return
    message = "not live-migratable" if strategy == "LiveMigrate" else "Eviction triggered"
    with pytest.raises(Unavailable, match=message) as refusal:
        await evict(kube, namespace, name)
    assert refusal.value.status == 429
    assert "deletionTimestamp" not in (await kube.get(path))["metadata"]
    status = (await kube.get(found))["status"]
    marked = "n1" if strategy == "External" else None
    assert status.get("evacuationNodeName") == marked
    # A deletion is no eviction.
    await kube.delete(path, {"gracePeriodSeconds": 0})


async def test_other_pods_are_evicted(virt_api: VirtApi, kube: Kube, namespace: str) -> None:
    body = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await kube.create(f"/api/v1/namespaces/{namespace}/pods", body)
    await evict(kube, namespace, "web")
    with pytest.raises(NotFound):
        await kube.get(f"/api/v1/namespaces/{namespace}/pods/web")
