"""Replica sets on a real API server: scaling by the subresource, pause, adoption, replacement."""

from __future__ import annotations

from typing import Any

import pytest
from tests.control_plane import ApiServer
from tests.operator.conftest import Node, eventually

from qvirt_kube.client import Kube

Object = dict[str, Any]

pytestmark = pytest.mark.usefixtures("controller")


def manifest(replicas: int) -> Object:
    domain = {"devices": {}, "memory": {"guest": "64Mi"}}
    labels = {"app": "web"}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"domain": domain}},
        },
    }


def seeds(replicas: int) -> Object:
    """The seed's kind, with its guest."""
    disks = [
        {"name": "registrydisk", "volumeName": "registryvolume", "disk": {"bus": "virtio"}},
        {"name": "cloudinitdisk", "volumeName": "cloudinitvolume", "disk": {"bus": "virtio"}},
    ]
    volumes = [
        {"name": "registryvolume", "registryDisk": {"image": "kubevirt/cirros-registry-disk-demo:devel"}},
        {"name": "cloudinitvolume", "cloudInitNoCloud": {"userData": "#cloud-config\n"}},
    ]  # fmt: skip
    spec = {
        "terminationGracePeriodSeconds": 5,
        "domain": {"resources": {"requests": {"memory": "64M"}}, "devices": {"disks": disks}},
        "volumes": volumes,
    }
    labels = {"app": "web"}
    return {
        "apiVersion": "kubevirt.io/v1alpha1",
        "kind": "VirtualMachineReplicaSet",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"name": "myvm", "labels": labels}, "spec": spec},
        },
    }


class ReplicaSet:
    def __init__(self, kube: Kube, node: Node, namespace: str) -> None:
        self._kube = kube
        self._node = node
        self.collection = (
            f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstancereplicasets"
        )
        self.path = f"{self.collection}/web"

    async def create(self, replicas: int) -> None:
        await self.apply(manifest(replicas))

    async def apply(self, body: Object) -> None:
        self.collection = self.collection.rpartition("/")[0]
        self.collection += f"/{body['kind'].lower()}s"
        self.collection = self.collection.replace("kubevirt.io/v1/", f"{body['apiVersion']}/")
        self.path = f"{self.collection}/web"
        await self._kube.create(self.collection, body)

    async def has(self, count: int) -> list[Object]:
        """Its instances, once there are so many, none of them ending, and the status says so."""

        async def look() -> list[Object] | None:
            items: list[Object] = (await self._kube.get(self._node.vmis_path))["items"]
            alive = [v for v in items if "deletionTimestamp" not in v["metadata"]]
            for vmi in items:
                if "deletionTimestamp" in vmi["metadata"]:
                    for pod in await self._node.pods(vmi["metadata"]["name"]):
                        await self._node.remove(pod)
            status = (await self._kube.get(self.path)).get("status", {})
            return alive if len(alive) == count == status.get("replicas") else None

        return await eventually(look)


@pytest.fixture
def replica_set(kube: Kube, node: Node, namespace: str) -> ReplicaSet:
    return ReplicaSet(kube, node, namespace)


async def test_scaling(
    replica_set: ReplicaSet, node: Node, api_server: ApiServer, namespace: str
) -> None:
    await replica_set.create(0)
    await replica_set.has(0)
    scale = ("scale", f"--namespace={namespace}", "vmirs/web")
    api_server.kubectl(*scale, "--replicas=3")
    vmis = await replica_set.has(3)
    for vmi in vmis:
        assert vmi["metadata"]["name"].startswith("web")
        await node.pod(vmi["metadata"]["name"])
    api_server.kubectl(*scale, "--replicas=1")
    await replica_set.has(1)


async def test_the_seeds_kind(
    kube: Kube, replica_set: ReplicaSet, node: Node, api_server: ApiServer, namespace: str
) -> None:
    await replica_set.apply(seeds(0))
    await replica_set.has(0)
    scale = ("scale", f"--namespace={namespace}", "vmrs/web")
    api_server.kubectl(*scale, "--replicas=2")
    vmis = await replica_set.has(2)
    for vmi in vmis:
        name = vmi["metadata"]["name"]
        assert name.startswith("myvm")
        (owner,) = vmi["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("VirtualMachineReplicaSet", "web")
        pod = await node.pod(name)
        names = [container["name"] for container in pod["spec"]["containers"]]
        assert names[0] == "compute"
        assert "volumeregistryvolume" in names
    first = vmis[0]["metadata"]["name"]
    pod = await node.pod(first)
    await node.run(pod)
    await node.vmi(first, "Scheduled")
    await node.handler_says_running(first)

    async def shown() -> bool | None:
        words = api_server.kubectl(
            "get", f"--namespace={namespace}", "vmrs", "--no-headers"
        ).split()
        return words[:4] == ["web", "2", "2", "1"] or None

    await eventually(shown)
    api_server.kubectl(*scale, "--replicas=1")
    (left,) = await replica_set.has(1)
    assert left["metadata"]["name"] == first


async def test_a_ready_one_is_kept_and_one_that_ended_replaced(
    kube: Kube, replica_set: ReplicaSet, node: Node
) -> None:
    await replica_set.create(2)
    first, _ = [vmi["metadata"]["name"] for vmi in await replica_set.has(2)]
    pod = await node.pod(first)
    await node.run(pod)
    await node.vmi(first, "Scheduled")
    await node.handler_says_running(first)

    async def one_ready() -> bool | None:
        status = (await kube.get(replica_set.path))["status"]
        return status.get("readyReplicas") == 1 or None

    await eventually(one_ready)
    await kube.patch(replica_set.path, {"spec": {"replicas": 1}})
    (left,) = await replica_set.has(1)
    assert left["metadata"]["name"] == first
    await node.end(pod, 0)

    async def another() -> bool | None:
        (now,) = await replica_set.has(1)
        return now["metadata"]["name"] != first or None

    await eventually(another)


async def test_paused_does_nothing(kube: Kube, replica_set: ReplicaSet) -> None:
    await replica_set.create(1)
    await replica_set.has(1)
    await kube.patch(replica_set.path, {"spec": {"paused": True, "replicas": 3}})

    async def told() -> bool | None:
        conditions = (await kube.get(replica_set.path))["status"].get("conditions", [])
        return [c["type"] for c in conditions] == ["ReplicaPaused"] or None

    await eventually(told)
    await replica_set.has(1)
    await kube.patch(replica_set.path, {"spec": {"paused": False}})
    await replica_set.has(3)


async def test_adoption(kube: Kube, replica_set: ReplicaSet, node: Node) -> None:
    template = manifest(0)["spec"]["template"]
    lone = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "lone", "labels": {"app": "web"}},
        "spec": template["spec"],
    }
    await kube.create(node.vmis_path, lone)
    await node.pod("lone")
    await replica_set.create(2)
    vmis = await replica_set.has(2)
    uid = (await kube.get(replica_set.path))["metadata"]["uid"]
    assert "lone" in [vmi["metadata"]["name"] for vmi in vmis]
    assert {vmi["metadata"]["ownerReferences"][0]["uid"] for vmi in vmis} == {uid}
