"""Nodes whose virt-handler is silent, on a real API server; the test plays kubelet, virt-handler and their deaths."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.control_plane import ApiServer
from tests.operator.conftest import CONTROLLER, Node, eventually, gone
from tests.operator.test_instances_real import manifest, reasons

from qvirt_kube.client import Kube
from qvirt_kube.errors import NotFound
from qvirt_operator.known import Known
from qvirt_operator.nodes import Nodes
from qvirt_operator.work import Key

Object = dict[str, Any]
#: What the tests' kubelet calls itself.
NODE = "node-1"
PATH = f"/api/v1/nodes/{NODE}"


def ago(minutes: float) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Machine:
    """A node, as its kubelet and virt-handler left it."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def beat(self, minutes: float) -> None:
        """As virt-handler did so long ago."""
        meta = {
            "labels": {"kubevirt.io/schedulable": "true"},
            "annotations": {"kubevirt.io/heartbeat": ago(minutes)},
        }
        await self._kube.patch(PATH, {"metadata": meta})

    async def remove(self) -> None:
        await self._kube.delete(PATH)

    async def schedulable(self) -> str:
        found: str = (await self._kube.get(PATH))["metadata"]["labels"]["kubevirt.io/schedulable"]
        return found


@pytest.fixture
async def machine(kube: Kube) -> AsyncIterator[Machine]:
    await kube.create("/api/v1/nodes", {"metadata": {"name": NODE}})
    yield Machine(kube)
    with contextlib.suppress(NotFound):
        await kube.delete(PATH)


@pytest.fixture
async def nodes(api_server: ApiServer, known: Known, nudges: list[Key]) -> AsyncIterator[Nodes]:
    """With the rights of the manifest."""
    async with Kube(api_server.kubeconfig(CONTROLLER)) as kube:
        yield Nodes(kube, known, nudges.append)


@pytest.fixture
def nudges() -> list[Key]:
    return []


async def scheduled(kube: Kube, node: Node) -> Object:
    """An instance that is virt-handler's; its pod."""
    await kube.create(node.vmis_path, manifest())
    pod = await node.pod("x")
    await node.run(pod)
    await node.vmi("x", "Scheduled")
    return pod


async def node_events(kube: Kube) -> list[Object]:
    listed = await kube.get(
        "/api/v1/namespaces/default/events", fieldSelector=f"involvedObject.name={NODE}"
    )
    found: list[Object] = listed["items"]
    return found


async def test_a_silent_node_is_closed_and_said_so(
    kube: Kube, nodes: Nodes, machine: Machine
) -> None:
    await machine.beat(4)
    await nodes.look()
    assert await machine.schedulable() == "true"
    await machine.beat(6)
    before = len(await node_events(kube))
    await nodes.look()
    assert await machine.schedulable() == "false"
    told = await node_events(kube)
    assert len(told) == before + 1
    assert {event["reason"] for event in told} == {"NodeUnresponsive"}
    assert told[-1]["involvedObject"]["kind"] == "Node"
    await nodes.look()
    assert len(await node_events(kube)) == before + 1
    # virt-handler is back.
    await machine.beat(0)
    await nodes.look()
    assert await machine.schedulable() == "true"


@pytest.mark.usefixtures("controller")
async def test_instances_of_a_silent_node_live_as_long_as_their_pods(
    kube: Kube, node: Node, namespace: str, nodes: Nodes, nudges: list[Key], machine: Machine
) -> None:
    pod = await scheduled(kube, node)
    await machine.beat(6)
    await nodes.look()
    assert Key(kind="vmi", namespace=namespace, name="x") in nudges
    # It may run: only Kubernetes can say that its pod is gone.
    await node.vmi("x", "Scheduled")
    await node.remove(pod)
    vmi = await node.vmi("x", "Failed")
    assert vmi["status"]["reason"] == "NodeUnresponsive"

    async def told() -> bool | None:
        return "NodeUnresponsive" in await reasons(kube, namespace, "x") or None

    await eventually(told)


@pytest.mark.usefixtures("controller")
async def test_a_node_that_is_gone(
    kube: Kube, node: Node, namespace: str, nodes: Nodes, nudges: list[Key], machine: Machine
) -> None:
    await machine.beat(0)
    pod = await scheduled(kube, node)
    await nodes.look()
    assert not [key for key in nudges if key.namespace == namespace]
    await machine.remove()
    await nodes.look()
    assert Key(kind="vmi", namespace=namespace, name="x") in nudges
    # As the collector of orphaned pods does.
    await node.remove(pod)
    vmi = await node.vmi("x", "Failed")
    assert vmi["status"]["reason"] == "NodeUnresponsive"
    await kube.delete(f"{node.vmis_path}/x")
    await gone(kube, f"{node.vmis_path}/x")


@pytest.mark.usefixtures("controller")
async def test_deletion_needs_no_handler(kube: Kube, node: Node, machine: Machine) -> None:
    await machine.beat(60)
    pod = await scheduled(kube, node)
    await kube.delete(f"{node.vmis_path}/x")
    await node.ending_pod("x")
    await node.remove(pod)
    await gone(kube, f"{node.vmis_path}/x")


@pytest.mark.usefixtures("controller")
async def test_deletion_that_began_on_a_node_that_went(
    kube: Kube, node: Node, machine: Machine
) -> None:
    await machine.beat(0)
    pod = await scheduled(kube, node)
    await kube.delete(f"{node.vmis_path}/x")
    await node.ending_pod("x")
    await machine.remove()
    await node.remove(pod)
    await gone(kube, f"{node.vmis_path}/x")


@pytest.mark.usefixtures("controller")
async def test_an_orphaning_deletion_takes_the_pod_along(kube: Kube, node: Node) -> None:
    """Without its owner a guest would run that no object stands for."""
    pod = await scheduled(kube, node)
    path = f"{node.vmis_path}/x"
    await kube.delete(path, {"propagationPolicy": "Orphan"})
    # As the garbage collector does.
    pods = node.vmis_path.partition("/virtualmachineinstances")[0]
    namespace = pods.rpartition("/")[2]
    await kube.patch(
        f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}",
        {"metadata": {"ownerReferences": None}},
    )
    finalizers = (await kube.get(path))["metadata"]["finalizers"]
    if "orphan" in finalizers:
        kept = [name for name in finalizers if name != "orphan"]
        await kube.patch(path, {"metadata": {"finalizers": kept}})
    await node.ending_pod("x")
    await node.remove(pod)
    await gone(kube, path)
