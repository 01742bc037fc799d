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
    vmi = await node.vmi("x", "Running")
    assert vmi["spec"]["domain"]["memory"]["guest"] == "64Mi"
    first = await revisions(kube, node)
    assert list(first) == [vmi["status"]["virtualMachineRevisionName"]]
    assert first.popitem()[1]["template"]["spec"]["domain"]["memory"]["guest"] == "64Mi"

    # Stopped by its user: the next start takes the change over.
    stop = {"action": "Stop", "uid": vmi["metadata"]["uid"]}
    requests = {"status": {"stateChangeRequests": [stop, {"action": "Start"}]}}
    pod = await node.pod("x")
    await kube.patch(f"{machines.path}/x/status", requests)
    await node.ending_pod("x")
    await node.remove(pod)
    await another_pod(node, pod)

    async def settled() -> Object | None:
        found = await kube.get(f"{machines.path}/x")
        types = [c["type"] for c in found["status"]["conditions"]]
        return None if "RestartRequired" in types else found

    vm = await eventually(settled)
    assert vm["status"]["observedGeneration"] == vm["metadata"]["generation"]
    vmi = await kube.get(f"{node.vmis_path}/x")
    assert vmi["spec"]["domain"]["memory"]["guest"] == "128Mi"
    (name,) = await revisions(kube, node)
    assert name == f"revision-start-vm-{vm['metadata']['uid']}-{vm['metadata']['generation']}"
    assert name == vmi["status"]["virtualMachineRevisionName"]


async def revisions(kube: Kube, node: Node) -> dict[str, Object]:
    """Name -> the spec that is kept."""
    namespace = node.pods_path.split("/")[4]
    found = await kube.get(f"/apis/apps/v1/namespaces/{namespace}/controllerrevisions")
    return {item["metadata"]["name"]: item["data"]["spec"] for item in found["items"]}


async def test_once_is_not_started_again(kube: Kube, node: Node, machines: Machines) -> None:
    await machines.create(manifest("Once"))
    pod = await running(node)
    await machines.says("Running")
    await node.end(pod, 0)
    ended = await node.vmi("x", "Succeeded")
    vm = await machines.says("Stopped")
    assert vm["status"]["created"] is True
    assert (await kube.get(f"{node.vmis_path}/x"))["metadata"]["uid"] == ended["metadata"]["uid"]
    # Who wants it once more deletes what has ended.
    await kube.delete(f"{node.vmis_path}/x")
    await node.remove(pod)
    again = await another_pod(node, pod)
    owner = again["metadata"]["ownerReferences"][0]
    assert owner["uid"] != ended["metadata"]["uid"]


async def test_an_orphaned_instance_runs_on(kube: Kube, node: Node, machines: Machines) -> None:
    await machines.create(manifest("Always"))
    pod = await running(node)
    await machines.says("Running")
    await kube.delete(f"{machines.path}/x", {"propagationPolicy": "Orphan"})
    vm = await kube.get(f"{machines.path}/x")
    assert "orphan" in vm["metadata"]["finalizers"]

    async def forgotten() -> bool | None:
        return not await revisions(kube, node) or None

    await eventually(forgotten)
    # As the garbage collector does it: first the owners, then the finalizer.
    await kube.patch(f"{node.vmis_path}/x", {"metadata": {"ownerReferences": None}})
    kept = [name for name in vm["metadata"]["finalizers"] if name != "orphan"]
    await kube.patch(f"{machines.path}/x", {"metadata": {"finalizers": kept}})
    await gone(kube, f"{machines.path}/x")
    vmi = await kube.get(f"{node.vmis_path}/x")
    assert "deletionTimestamp" not in vmi["metadata"]
    assert (await node.pod("x"))["metadata"]["uid"] == pod["metadata"]["uid"]
    # A machine of that name takes it over, without a restart.
    await machines.create(manifest("Always"))
    await machines.says("Running")
    assert (await node.pod("x"))["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_foreground_deletion(kube: Kube, node: Node, machines: Machines) -> None:
    await machines.create(manifest("Always"))
    pod = await running(node)
    await machines.says("Running")
    await kube.delete(f"{machines.path}/x", {"propagationPolicy": "Foreground"})
    await node.ending_pod("x")
    await node.remove(pod)
    await gone(kube, f"{node.vmis_path}/x")

    async def ours_is_off() -> Object | None:
        vm = await kube.get(f"{machines.path}/x")
        return vm if vm["metadata"]["finalizers"] == ["foregroundDeletion"] else None

    # The rest is the garbage collector's, which waits for everything that it deletes.
    await eventually(ours_is_off)
    await kube.patch(f"{machines.path}/x", {"metadata": {"finalizers": None}})
    await gone(kube, f"{machines.path}/x")


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
