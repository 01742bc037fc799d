"""VirtualMachines on a real API server: run strategies, restarts, deletion; the test plays kubelet and virt-handler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.operator.conftest import Node, eventually, gone

from qvirt_crds.load import load_manifests
from qvirt_kube.client import Kube

Object = dict[str, Any]
SEED = Path(__file__).parents[2] / "examples" / "seed-vm.yaml"


def manifest(strategy: str) -> Object:
    domain = {"devices": {}, "memory": {"guest": "64Mi"}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "x"},
        "spec": {"runStrategy": strategy, "template": {"spec": {"domain": domain}}},
    }


class Machines:
    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self.path = f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachines"

    async def create(self, body: Object) -> Object:
        return await self._kube.create(self.path, body)

    async def says(self, word: str, name: str = "x") -> Object:
        """The VM, once its printable status is this."""

        async def look() -> Object | None:
            vm = await self._kube.get(f"{self.path}/{name}")
            return vm if vm.get("status", {}).get("printableStatus") == word else None

        return await eventually(look)

    async def strategy(self, strategy: str) -> None:
        await self._kube.patch(f"{self.path}/x", {"spec": {"runStrategy": strategy}})


@pytest.fixture
def machines(kube: Kube, namespace: str) -> Machines:
    return Machines(kube, namespace)


pytestmark = pytest.mark.usefixtures("controller")


async def test_the_seeds_machine(kube: Kube, node: Node, machines: Machines) -> None:
    vm = msgspec.to_builtins(load_manifests(SEED.read_text(), "seed").machines[0])
    await machines.create(vm)
    pod = await node.pod("myvm")
    assert pod["metadata"]["name"].startswith("virt-launcher-myvm-")
    await machines.says("Starting", "myvm")
    await node.run(pod)
    await node.vmi("myvm", "Scheduled")
    await node.handler_says_running("myvm")
    vm = await machines.says("Running", "myvm")
    assert vm["status"]["created"] is True
    vmi = await node.vmi("myvm", "Running")
    assert vmi["metadata"]["ownerReferences"][0]["uid"] == vm["metadata"]["uid"]
    assert vmi["metadata"]["annotations"]["kubevirt.io/vm-generation"] == "1"
    assert vmi["spec"]["domain"]["firmware"]["uuid"]


async def running(node: Node) -> Object:
    pod = await node.pod("x")
    await node.run(pod)
    await node.vmi("x", "Scheduled")
    await node.handler_says_running("x")
    return pod


async def uid(node: Node) -> str:
    return str((await node.vmi("x", "Running"))["metadata"]["uid"])


async def another_pod(node: Node, old: Object) -> Object:
    async def look() -> Object | None:
        pods = [p for p in await node.pods("x") if p["metadata"]["uid"] != old["metadata"]["uid"]]
        return pods[0] if pods else None

    return await eventually(look)


async def test_always_restarts_a_guest_that_shut_down(node: Node, machines: Machines) -> None:
    await machines.create(manifest("Always"))
    pod = await running(node)
    await machines.says("Running")
    await node.end(pod, 0)
    assert (await another_pod(node, pod))["metadata"]["name"] != pod["metadata"]["name"]


async def test_a_guest_that_never_ran_is_restarted_later_and_later(
    kube: Kube, node: Node, machines: Machines
) -> None:
    await machines.create(manifest("Always"))
    pod = await node.pod("x")
    await node.run(pod)
    await node.vmi("x", "Scheduled")
    await node.end(pod, 5)
    vm = await machines.says("CrashLoopBackOff")
    assert vm["status"]["startFailure"]["consecutiveFailCount"] == 1
    await gone(kube, f"{node.vmis_path}/x")
    assert await node.pods("x") == []


async def test_rerun_on_failure(kube: Kube, node: Node, machines: Machines) -> None:
    await machines.create(manifest("RerunOnFailure"))
    first = await running(node)
    await node.end(first, 6)
    second = await another_pod(node, first)
    await node.run(second)
    await node.vmi("x", "Scheduled")
    await node.handler_says_running("x")
    await machines.says("Running")
    await node.end(second, 0)
    await gone(kube, f"{node.vmis_path}/x")
    vm = await machines.says("Stopped")
    assert "stateChangeRequests" not in vm["status"]


async def test_halting_stops_and_always_starts(kube: Kube, node: Node, machines: Machines) -> None:
    await machines.create(manifest("Halted"))
    await machines.says("Stopped")
    assert await node.pods("x") == []
    await machines.strategy("Always")
    pod = await running(node)
    await machines.says("Running")
    await machines.strategy("Halted")
    await machines.says("Stopping")
    await node.ending_pod("x")
    await node.remove(pod)
    await gone(kube, f"{node.vmis_path}/x")
    await machines.says("Stopped")


async def test_manual_waits_for_a_request(kube: Kube, node: Node, machines: Machines) -> None:
    await machines.create(manifest("Manual"))
    await machines.says("Stopped")
    requests = {"status": {"stateChangeRequests": [{"action": "Start"}]}}
    await kube.patch(f"{machines.path}/x/status", requests)
    pod = await running(node)
    vm = await machines.says("Running")
    assert "stateChangeRequests" not in vm["status"]
    await node.end(pod, 0)
    await node.vmi("x", "Succeeded")
    await machines.says("Stopped")


async def test_a_change_waits_for_the_restart(kube: Kube, node: Node, machines: Machines) -> None:
    await machines.create(manifest("Always"))
    await running(node)
    await machines.says("Running")
    await machines.strategy("RerunOnFailure")

    async def restamped() -> bool | None:
        vmi = await node.vmi("x", "Running")
        return vmi["metadata"]["annotations"]["kubevirt.io/vm-generation"] == "2" or None

    await eventually(restamped)
    change = {"spec": {"template": {"spec": {"domain": {"memory": {"guest": "128Mi"}}}}}}
    await kube.patch(f"{machines.path}/x", change)

    async def told() -> Object | None:
        vm = await machines.says("Running")
        types = [c["type"] for c in vm["status"]["conditions"]]
        return vm if "RestartRequired" in types else None

    vm = await eventually(told)
    assert (vm["status"]["observedGeneration"], vm["status"]["desiredGeneration"]) == (2, 3)


async def test_deleting_waits_for_the_guest(kube: Kube, node: Node, machines: Machines) -> None:
    await machines.create(manifest("Always"))
    pod = await running(node)
    await machines.says("Running")
    await kube.delete(f"{machines.path}/x")
    await machines.says("Terminating")
    await node.ending_pod("x")
    await node.remove(pod)
    await gone(kube, f"{machines.path}/x")
    await gone(kube, f"{node.vmis_path}/x")
