"""The handler against a real API server, a real launcher in a pod's namespaces, and a real guest."""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.request
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from qvirt_kube.errors import KubeError
from qvirt_qmp.client import connect_unix

if TYPE_CHECKING:
    from tests.control_plane import ApiServer
    from tests.handler.conftest import Api, Handler, Pod

Eventually = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]

pytestmark = [pytest.mark.root, pytest.mark.qemu, pytest.mark.guest, pytest.mark.timeout(300)]


def running(status: dict[str, Any]) -> bool:
    return status["phase"] == "Running" and bool(status.get("interfaces"))


@pytest.mark.parametrize("binding", ["bridge", "masquerade"])
async def test_a_vmi_runs_at_its_pods_address(
    api: Api, handler: Handler, pod: Pod, eventually: Eventually, binding: str
) -> None:
    await api.create(pod.vmi(binding))
    await handler.start()
    name = f"demo-{binding}"
    status = await api.until_status(name, running)
    (interface,) = status["interfaces"]
    assert interface["ipAddress"] == pod.address
    assert interface["ipAddresses"] == [pod.address]
    assert interface["name"] == "default"
    assert interface["podInterfaceName"] == "eth0"
    assert interface["infoSource"] == "domain"
    assert [t["phase"] for t in status["phaseTransitionTimestamps"]] == ["Scheduled", "Running"]
    assert [c["type"] for c in status["conditions"]] == ["Ready"]
    assert await eventually("the guest answers", pod.answers)
    assert await api.reasons(name) == ["Created", "Started"]


async def test_a_guest_runs_before_the_kubelet_has_said_that_its_pod_does(
    api: Api, handler: Handler, pod: Pod
) -> None:
    vmi = pod.vmi()
    entry = {"phase": "Scheduling", "phaseTransitionTimestamp": "2026-01-01T00:00:00Z"}
    vmi["status"] |= {"phase": "Scheduling", "phaseTransitionTimestamps": [entry]}
    before = int((await api.create(vmi))["metadata"]["generation"])
    await handler.start()
    status = await api.until_status("demo-bridge", running)
    passed = [t["phase"] for t in status["phaseTransitionTimestamps"]]
    assert passed == ["Scheduling", "Scheduled", "Running"]
    # All that there was to say came in one write, which is the one that made it Running.
    path = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances/demo-bridge"
    written = await api.kube.get(path)
    assert written["metadata"]["generation"] == before + 1


async def test_a_handler_that_is_killed_finds_its_guest_again(
    api: Api, handler: Handler, pod: Pod, eventually: Eventually
) -> None:
    await api.create(pod.vmi())
    await handler.start()
    before = await api.until_status("demo-bridge", running)
    assert await eventually("the guest answers", pod.answers)
    await handler.kill()

    monitor = await connect_unix(f"/proc/{pod.launcher()}/root/run/qvirt/launcher.sock")
    await monitor.execute("stop", origin="test")
    assert "Paused" not in str((await api.status("demo-bridge"))["conditions"])
    await handler.start()

    async def paused() -> Any:
        return await api.condition("demo-bridge", "Paused")

    found = await eventually("Paused", paused)
    assert (found["status"], found["reason"]) == ("True", "PausedByUser")
    await monitor.execute("cont", origin="test")

    async def unpaused() -> bool:
        return await paused() is None

    await eventually("not Paused", unpaused)
    await monitor.aclose()
    after = await api.status("demo-bridge")
    same = ("phase", "phaseTransitionTimestamps", "interfaces", "activePods", "nodeName")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert await eventually("the guest answers", pod.answers)
    assert await api.reasons("demo-bridge") == ["Created", "Started", "Paused", "Unpaused"]


async def test_the_end_of_guest_vmi_and_handler(
    api: Api, handler: Handler, pod: Pod, eventually: Eventually
) -> None:
    await api.create(pod.vmi())
    await handler.start()
    await api.until_status("demo-bridge", running)
    assert await eventually("the guest answers", pod.answers)
    assert list(handler.state_dir.glob("net-*.json"))

    async def health() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{handler.port}/healthz") as answer:
            return bool(answer.status == 200)

    assert await health()
    node = await api.node()
    assert node["labels"]["kubevirt.io/schedulable"] == "true"
    assert node["annotations"]["kubevirt.io/heartbeat"]

    # What kubelet does when the pod is deleted.
    os.kill(pod.launcher(), signal.SIGTERM)
    assert await pod.exit_code() == 0

    async def signaled() -> bool:
        return "ShuttingDown" in await api.reasons("demo-bridge")

    await eventually("ShuttingDown", signaled)
    # Its end is virt-controller's to write.
    assert (await api.status("demo-bridge"))["phase"] == "Running"
    await api.delete("demo-bridge")

    async def forgotten() -> bool:
        return not list(handler.state_dir.glob("net-*.json"))

    await eventually("the network is forgotten", forgotten)
    assert await handler.stop() == 0
    assert (await api.node())["labels"]["kubevirt.io/schedulable"] == "false"


async def test_a_guest_that_cannot_be_made(
    api: Api, handler: Handler, pod: Pod, eventually: Eventually
) -> None:
    volumes = [{"name": "root", "containerDisk": {"image": "demo", "path": "/disk/none"}}]
    await api.create(pod.vmi(volumes=volumes))
    await handler.start()

    async def failed() -> Any:
        # On a busy machine it is said first that the launcher does not start.
        found = await api.condition("demo-bridge", "Synchronized")
        return found if found and "/disk/none" in found["message"] else None

    found = await eventually("Synchronized is False", failed)
    assert found["status"] == "False"
    assert found["reason"] == "Synchronizing with the Domain failed."
    assert "/disk/none: not in the image" in found["message"]
    assert await pod.exit_code() == 4

    async def told() -> bool:
        return "SyncFailed" in await api.reasons("demo-bridge")

    await eventually("SyncFailed", told)
    assert (await api.status("demo-bridge"))["phase"] == "Scheduled"


async def test_an_api_server_that_is_gone_for_a_while(
    api_server: ApiServer, api: Api, handler: Handler, pod: Pod, eventually: Eventually
) -> None:
    await api.create(pod.vmi())
    await handler.start()
    await api.until_status("demo-bridge", running)
    api_server.stop()
    try:
        # Long enough for several tries of everything.
        await asyncio.sleep(8)
        monitor = await connect_unix(f"/proc/{pod.launcher()}/root/run/qvirt/launcher.sock")
        await monitor.execute("stop", origin="test")
        await monitor.aclose()
        await asyncio.sleep(4)
    finally:
        api_server.start()

    async def paused() -> Any:
        try:
            return await api.condition("demo-bridge", "Paused")
        except KubeError:
            return None

    await eventually("Paused", paused)
    # The watch works again: the end of the VMI is seen.
    await api.delete("demo-bridge")

    async def done() -> bool:
        return "default/demo-bridge: done" in handler.log

    await eventually("the handler lets go", done)
    assert handler.process is not None
    assert handler.process.returncode is None
