"""What a node gives to pods and takes back: devices by the real kubelet, and the end of a launcher that nobody saw coming."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Cluster
from tests.e2e.guests import instance

from qvirt_handler.device_plugin.plugin import Offer, Plugin

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(900)]

Object = dict[str, Any]
PLUGINS = Path("/var/lib/kubelet/device-plugins")
KVM = "devices.kubevirt.io/kvm"
#: A device that every node has, and that no container sees unless it is given.
THING = Offer(resource=f"devices.kubevirt.io/e2e-{os.getpid()}", device="/dev/fuse", count=2)


def asks(name: str, resource: str) -> Object:
    """A pod that shows the device and ends."""
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 107,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    show = "import os, stat; found = os.stat('/dev/fuse'); print(stat.S_ISCHR(found.st_mode), found.st_rdev)"
    container = {
        "name": "main",
        "image": "",
        "command": ["python3", "-c", show],
        "securityContext": restricted,
        "resources": {"limits": {resource: "1"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }


def pod(cluster: Cluster, name: str, resource: str) -> None:
    """One of qvirt's own image, which the node has."""
    text = cluster.kubectl("get", "daemonset", "virt-handler", "-n", "kubevirt", "-o=json")
    body = asks(name, resource)
    (handler,) = json.loads(text)["spec"]["template"]["spec"]["containers"]
    body["spec"]["containers"][0]["image"] = handler["image"]
    cluster.apply(body)


def phase(cluster: Cluster, name: str) -> str:
    return str(cluster.get("pod", name)["status"]["phase"])


def refused(cluster: Cluster, name: str) -> str:
    """Why the scheduler has no node for it."""
    scheduled = cluster.condition("pod", name, "PodScheduled")
    return str(scheduled.get("message", "")) if scheduled.get("status") == "False" else ""


def allocatable(cluster: Cluster, resource: str) -> int:
    (node,) = json.loads(cluster.kubectl("get", "nodes", "-o=json"))["items"]
    text = node["status"]["allocatable"].get(resource, "0")
    return int(text.removesuffix("k")) * (1000 if text.endswith("k") else 1)


class Trouble:
    def __init__(self) -> None:
        self.why = ""

    def __call__(self) -> str:
        return self.why


@contextlib.asynccontextmanager
async def offered(trouble: Trouble) -> AsyncIterator[None]:
    plugin = Plugin(THING, str(PLUGINS), trouble)
    task = asyncio.create_task(plugin.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
        Path(plugin.socket).unlink(missing_ok=True)


@pytest.mark.skipif(not PLUGINS.is_dir(), reason="the cluster's node is another machine")
async def test_a_pod_gets_a_device_only_while_it_is_offered(cluster: Cluster) -> None:
    def until(what: str, holds: Any) -> Any:
        return asyncio.to_thread(cluster.until, what, holds)

    pod(cluster, "early", THING.resource)
    await until("nobody has it", lambda: "Insufficient" in refused(cluster, "early"))
    trouble = Trouble()
    async with offered(trouble):
        await until("it is there", lambda: allocatable(cluster, THING.resource) == THING.count)
        await until("the pod had it", lambda: phase(cluster, "early") == "Succeeded")
        seen = cluster.kubectl("logs", "early").split()
        assert seen == ["True", str(os.stat(THING.device).st_rdev)]

        trouble.why = "it broke"
        await until("it is gone", lambda: allocatable(cluster, THING.resource) == 0)
        pod(cluster, "late", THING.resource)
        await until("nobody has it", lambda: "Insufficient" in refused(cluster, "late"))
        trouble.why = ""
        await until("the pod had it", lambda: phase(cluster, "late") == "Succeeded")


def test_kvm_is_offered_as_far_as_it_works(cluster: Cluster) -> None:
    handlers = json.loads(
        cluster.kubectl("get", "pods", "-n=kubevirt", "-l=kubevirt.io=virt-handler", "-o=json")
    )["items"]
    probe = cluster.kubectl("logs", "-n=kubevirt", handlers[0]["metadata"]["name"], "-c=node-probe")
    pod(cluster, "guest", KVM)
    if "KVM works" in probe:
        cluster.until("KVM is offered", lambda: allocatable(cluster, KVM) == 1000)
        cluster.until("the pod had it", lambda: phase(cluster, "guest") in ("Succeeded", "Failed"))
    else:
        assert "guests will be emulated" in probe
        cluster.until("nobody has it", lambda: "Insufficient" in refused(cluster, "guest"))
        assert allocatable(cluster, KVM) == 0


def test_labels_of_the_node(cluster: Cluster) -> None:
    (node,) = json.loads(cluster.kubectl("get", "nodes", "-o=json"))["items"]
    labels = node["metadata"]["labels"]
    assert labels["kubevirt.io/schedulable"] == "true"
    assert labels["cpu-model.node.kubevirt.io/qemu64"] == "true"
    assert node["metadata"]["annotations"]["kubevirt.io/heartbeat"]


def test_a_launcher_that_is_killed_takes_its_pod_along(cluster: Cluster) -> None:
    cluster.apply(instance("killed"))
    cluster.running("killed")
    (before,) = cluster.pods("killed")
    assert len(before["spec"]["containers"]) > 1
    os.kill(launcher(before["metadata"]["uid"]), signal.SIGKILL)
    cluster.until("it has failed", lambda: cluster.phase("killed") == "Failed", 30)
    assert "signal 9" in cluster.get("vmi", "killed")["status"]["reason"]

    def ended() -> bool:
        (after,) = cluster.pods("killed")
        return bool(after["status"]["phase"] == "Failed")

    # Sooner than virt-controller would clear away what is left of it.
    cluster.until("its pod has ended", ended, 30)


def launcher(uid: str) -> int:
    """Process number of a pod's virt-launcher on this machine."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            inside = uid in (path / "cgroup").read_text().replace("_", "-")
            if inside and b"--pod" in (path / "cmdline").read_bytes().split(b"\0"):
                return int(path.name)
    raise AssertionError(f"no launcher of pod {uid} on this machine")
