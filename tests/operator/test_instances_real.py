"""Instances on a real API server, with virt-controller's own rights; the test plays kubelet and virt-handler."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from tests.operator.conftest import Node, eventually, gone

from qvirt_kube.client import Kube
from qvirt_kube.errors import Conflict

Object = dict[str, Any]


def manifest(name: str = "x", **spec: Any) -> Object:
    domain = {"devices": {}, "memory": {"guest": "64Mi"}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"domain": domain, "terminationGracePeriodSeconds": 5, **spec},
    }


def conditions(vmi: Object) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c.get("reason", "")) for c in vmi["status"]["conditions"]}


async def reasons(kube: Kube, namespace: str, name: str) -> set[str]:
    found = await kube.get(
        f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.name={name}"
    )
    return {event["reason"] for event in found["items"]}


@pytest.mark.usefixtures("controller")
async def test_a_whole_life(kube: Kube, node: Node, namespace: str) -> None:
    await kube.create(node.vmis_path, manifest())
    pod = await node.pod("x")
    assert pod["metadata"]["labels"]["app"] == "web"
    vmi = await node.vmi("x", "Scheduling")
    assert conditions(vmi)["Ready"] == ("False", "GuestNotRunning")
    await node.run(pod)
    vmi = await node.vmi("x", "Scheduled")
    assert vmi["status"]["nodeName"] == "node-1"
    assert vmi["metadata"]["labels"]["kubevirt.io/nodeName"] == "node-1"
    assert vmi["status"]["activePods"] == {pod["metadata"]["uid"]: "node-1"}
    await node.handler_says_running("x")

    async def ready() -> bool | None:
        return conditions(await node.vmi("x", "Running"))["Ready"] == ("True", "") or None

    await eventually(ready)
    (gate,) = [
        c for c in (await node.pod("x"))["status"]["conditions"] if c["type"].startswith("kubevirt")
    ]
    assert (gate["status"], gate["reason"]) == ("True", "NotPaused")
    await node.end(pod, 0)
    vmi = await node.vmi("x", "Succeeded")
    phases = [t["phase"] for t in vmi["status"]["phaseTransitionTimestamps"]]
    assert phases == ["Pending", "Scheduling", "Scheduled", "Running", "Succeeded"]
    assert vmi["status"]["activePods"] == {}
    await kube.delete(f"{node.vmis_path}/x")
    # A pod that has ended goes at once.
    await gone(kube, f"{node.vmis_path}/x")
    assert await reasons(kube, namespace, "x") >= {
        "SuccessfulCreate",
        "SuccessfulDelete",
        "Stopped",
    }


@pytest.mark.usefixtures("controller")
async def test_a_failed_launcher_fails_the_instance_and_says_why(kube: Kube, node: Node) -> None:
    await kube.create(node.vmis_path, manifest())
    pod = await node.pod("x")
    await node.run(pod)
    await node.vmi("x", "Scheduled")
    await node.end(pod, 5, "first line\nQEMU failed: no memory")
    vmi = await node.vmi("x", "Failed")
    assert (
        vmi["status"]["reason"] == "Error: the launcher ended with status 5: QEMU failed: no memory"
    )


@pytest.mark.usefixtures("controller")
async def test_a_pod_removed_by_force_fails_the_instance(kube: Kube, node: Node) -> None:
    with suppress(Conflict):
        await kube.create("/api/v1/nodes", {"metadata": {"name": "node-of-force"}})
    await kube.create(node.vmis_path, manifest())
    pod = await node.pod("x")
    await node.run(pod, "node-of-force")
    await node.vmi("x", "Scheduled")
    await node.remove(pod)
    vmi = await node.vmi("x", "Failed")
    assert vmi["status"]["reason"].startswith("PodVanished")
    assert await node.pods("x") == []


@pytest.mark.usefixtures("controller")
async def test_deletion_waits_for_the_pod_and_no_longer(kube: Kube, node: Node) -> None:
    await kube.create(node.vmis_path, manifest())
    pod = await node.pod("x")
    await node.run(pod)
    await node.vmi("x", "Scheduled")
    await kube.delete(f"{node.vmis_path}/x")

    ending = await node.ending_pod("x")
    assert ending["metadata"]["deletionGracePeriodSeconds"] == 35
    vmi = await kube.get(f"{node.vmis_path}/x")
    assert vmi["metadata"]["finalizers"] == ["kubevirt.io/foregroundDeleteVirtualMachine"]
    await node.remove(pod)
    await gone(kube, f"{node.vmis_path}/x")


@pytest.mark.usefixtures("controller")
async def test_a_missing_claim_is_waited_for(kube: Kube, node: Node, namespace: str) -> None:
    volumes = [{"name": "root", "persistentVolumeClaim": {"claimName": "data"}}]
    await kube.create(node.vmis_path, manifest(volumes=volumes))

    async def told() -> Object | None:
        vmi = await node.vmi("x", "Pending")
        return vmi if "Synchronized" in conditions(vmi) else None

    found = conditions(await eventually(told))
    assert found["Synchronized"] == ("False", "FailedPvcNotFound")
    assert found["PodScheduled"] == ("False", "Unschedulable")
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Block",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    await kube.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", claim)
    pod = await node.pod("x")
    devices = pod["spec"]["containers"][0]["volumeDevices"]
    assert devices == [{"name": "root", "devicePath": "/dev/root"}]
    vmi = await node.vmi("x", "Scheduling")
    assert "Synchronized" not in conditions(vmi)
    await node.run(pod)
    status = (await node.vmi("x", "Scheduled"))["status"]
    (volume,) = status["volumeStatus"]
    assert (volume["name"], volume["target"]) == ("root", "sda")
    info = volume["persistentVolumeClaimInfo"]
    assert (info["claimName"], info["volumeMode"]) == ("data", "Block")
    assert info["requests"] == {"storage": "1Gi"}
    assert status["migrationMethod"] == "BlockMigration"
    migratable = conditions({"status": status})["LiveMigratable"]
    assert migratable == ("False", "InterfaceNotLiveMigratable")
    assert "FailedPvcNotFound" in await reasons(kube, namespace, "x")


@pytest.mark.usefixtures("controller")
async def test_a_spec_that_makes_no_pod_is_told_and_can_still_be_deleted(
    kube: Kube, node: Node
) -> None:
    await kube.create(node.vmis_path, manifest(livenessProbe={"exec": {"command": []}}))

    async def told() -> Object | None:
        vmi = await node.vmi("x", "Pending")
        return vmi if "Synchronized" in conditions(vmi) else None

    vmi = await eventually(told)
    assert conditions(vmi)["Synchronized"] == ("False", "FailedCreateValidation")
    await kube.delete(f"{node.vmis_path}/x")
    await gone(kube, f"{node.vmis_path}/x")


@pytest.mark.usefixtures("controller")
async def test_a_refused_pod_is_told_and_tried_again(
    kube: Kube, node: Node, namespace: str
) -> None:
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await kube.create(quotas, quota)
    # No controller counts here: the quota's status says what is used.
    await kube.patch(
        f"{quotas}/none/status", {"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}}
    )
    await kube.create(node.vmis_path, manifest())

    async def told() -> Object | None:
        vmi = await node.vmi("x", "Pending")
        return vmi if conditions(vmi).get("Synchronized") == ("False", "FailedCreate") else None

    await eventually(told)
    await kube.delete(f"{quotas}/none")
    await node.pod("x")


@pytest.mark.usefixtures("controller")
async def test_image_trouble_is_told(kube: Kube, node: Node) -> None:
    await kube.create(node.vmis_path, manifest())
    pod = await node.pod("x")
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    status = {
        "name": "compute",
        "ready": False,
        "restartCount": 0,
        "image": "a",
        "imageID": "",
        "state": waiting,
    }
    await node.write(pod, containerStatuses=[status])

    async def told() -> bool | None:
        found = conditions(await node.vmi("x", "Scheduling"))
        return found.get("Synchronized") == ("False", "ImagePullBackOff") or None

    await eventually(told)
