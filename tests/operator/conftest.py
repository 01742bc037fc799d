"""A real API server (etcd and kube-apiserver, no kubelet, no controllers), and hands that play the node's part."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pytest
from tests.control_plane import ApiServer, control_plane

from qvirt_crds import schema
from qvirt_kube.client import Kube
from qvirt_kube.errors import Conflict, NotFound
from qvirt_operator.arguments import parse
from qvirt_operator.known import Known
from qvirt_operator.main import reconciler
from qvirt_operator.watch import watching
from qvirt_operator.work import WorkQueue

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "operator" / "manifests"

Object = dict[str, Any]
_T = TypeVar("_T")


CONTROLLER: Final = "system:serviceaccount:kubevirt:virt-controller"


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """With our CRDs and virt-controller's RBAC in it."""
    with control_plane(tmp_path_factory.mktemp("apiserver"), [CONTROLLER]) as server:
        _install(server)
        yield server


@pytest.fixture
async def kube(api_server: ApiServer) -> AsyncIterator[Kube]:
    """A connection as the administrator."""
    async with Kube(api_server.kubeconfig()) as connection:
        yield connection


@pytest.fixture
async def namespace(kube: Kube) -> str:
    """A fresh namespace that enforces PodSecurity `restricted` where the API server knows of it."""
    name = f"test-{secrets.token_hex(4)}"
    metadata = {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    await kube.create("/api/v1/namespaces", {"metadata": metadata})
    return name


def _install(server: ApiServer) -> None:
    """CRDs as they are, but for the conversion webhook, which is virt-api's."""
    definitions = schema.definitions()
    for definition in definitions:
        definition["spec"].pop("conversion", None)
    crds = {"apiVersion": "v1", "kind": "List", "items": definitions}
    server.kubectl("apply", "-f", "-", stdin=msgspec.json.encode(crds).decode())
    kinds = [f"crd/{definition['metadata']['name']}" for definition in schema.definitions()]
    server.kubectl("wait", "--for=condition=Established", "--timeout=30s", *kinds)
    for name in ("00-namespace.yaml", "virt-controller.yaml"):
        server.kubectl("apply", "-f", str(MANIFESTS / name))


class Node:
    """Plays scheduler, kubelet and virt-handler: writes what those write, and no more."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self.pods_path = f"/api/v1/namespaces/{namespace}/pods"
        self.vmis_path = f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances"

    async def pods(self, vmi: str) -> list[Object]:
        found = await self._kube.get(self.pods_path, labelSelector=f"vmi.kubevirt.io/id={vmi}")
        items: list[Object] = found["items"]
        return items

    async def pod(self, vmi: str) -> Object:
        """The one live pod of an instance, once it is there."""

        async def look() -> Object | None:
            live = [p for p in await self.pods(vmi) if "deletionTimestamp" not in p["metadata"]]
            assert len(live) <= 1
            return live[0] if live else None

        return await eventually(look)

    async def ending_pod(self, vmi: str) -> Object:
        """The one pod of an instance, once somebody has deleted it."""

        async def look() -> Object | None:
            pods = await self.pods(vmi)
            return pods[0] if pods and "deletionTimestamp" in pods[0]["metadata"] else None

        return await eventually(look)

    async def bind(self, pod: Object, node: str = "node-1") -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"metadata": {"name": pod["metadata"]["name"]}, "target": target}
        await self._kube.create(f"{self.pods_path}/{pod['metadata']['name']}/binding", body)

    async def run(self, pod: Object, on: str = "node-1") -> None:
        """Scheduled, all containers running."""
        await self.bind(pod, on)
        names = [container["name"] for container in pod["spec"]["containers"]]
        running = [container_status(name, {"running": {}}) for name in names]
        ready = {"type": "Ready", "status": "True"}
        await self.write(pod, phase="Running", containerStatuses=running, conditions=[ready])

    async def end(self, pod: Object, exit_code: int, message: str = "") -> None:
        """The guest has ended, and with it all containers."""
        ended = {"exitCode": exit_code, "message": message}
        names = [container["name"] for container in pod["spec"]["containers"]]
        statuses = [container_status(names[0], {"terminated": ended})]
        statuses += [container_status(name, {"terminated": {"exitCode": 0}}) for name in names[1:]]
        phase = "Succeeded" if exit_code == 0 else "Failed"
        await self.write(pod, phase=phase, containerStatuses=statuses)

    async def write(self, pod: Object, **status: Any) -> None:
        path = f"{self.pods_path}/{pod['metadata']['name']}/status"
        await self._kube.patch(path, {"status": status}, "strategic")

    async def remove(self, pod: Object) -> None:
        """What kubelet does with a deleted pod when all has ended; one that is gone already is fine."""
        options = {"gracePeriodSeconds": 0}
        with suppress(NotFound):
            await self._kube.delete(f"{self.pods_path}/{pod['metadata']['name']}", options)

    async def handler_says_running(self, name: str) -> None:
        """As virt-handler does it: its own fields, with the resourceVersion that it saw."""
        while True:
            vmi = await self._kube.get(f"{self.vmis_path}/{name}")
            before = vmi["status"].get("phaseTransitionTimestamps", [])
            entry = {"phase": "Running", "phaseTransitionTimestamp": "2026-01-01T00:00:00Z"}
            status = {"phase": "Running", "phaseTransitionTimestamps": [*before, entry]}
            metadata = {"resourceVersion": vmi["metadata"]["resourceVersion"]}
            try:
                await self._kube.patch(
                    f"{self.vmis_path}/{name}", {"metadata": metadata, "status": status}
                )
            except Conflict:
                continue
            return

    async def vmi(self, name: str, phase: str) -> Object:
        """The instance, once it is in this phase."""

        async def look() -> Object | None:
            vmi = await self._kube.get(f"{self.vmis_path}/{name}")
            return vmi if vmi.get("status", {}).get("phase") == phase else None

        return await eventually(look)


def container_status(name: str, state: Object) -> Object:
    return {
        "name": name,
        "ready": "running" in state,
        "restartCount": 0,
        "image": f"image-of-{name}",
        "imageID": "",
        "state": state,
    }


async def eventually(look: Callable[[], Awaitable[_T | None]], within: float = 20) -> _T:
    """What `look` gives as soon as it gives something.

    :raise TimeoutError: it has not in so many seconds.
    """
    async with asyncio.timeout(within):
        while True:
            found = await look()
            if found is not None:
                return found
            await asyncio.sleep(0.05)


async def gone(kube: Kube, path: str) -> None:
    """Wait until there is no such object."""

    async def look() -> bool | None:
        try:
            await kube.get(path)
        except NotFound:
            return True
        return None

    await eventually(look)


@pytest.fixture
def node(kube: Kube, namespace: str) -> Node:
    return Node(kube, namespace)


@pytest.fixture
def known() -> Known:
    """What `controller` knows."""
    return Known()


@pytest.fixture
async def controller(
    api_server: ApiServer, namespace: str, known: Known, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """virt-controller's watching and working part, with the rights of its manifest, in one namespace."""
    kubeconfig = api_server.kubeconfig(CONTROLLER)
    argv = [
        "--launcher-image=launcher",
        f"--watch-namespace={namespace}",
        f"--kubeconfig={kubeconfig}",
    ]
    arguments = parse(argv)
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    async with Kube(kubeconfig) as connection:
        queue = WorkQueue(reconciler(connection, arguments, known))
        async with watching(connection, known, queue.nudge, namespace):
            working = asyncio.create_task(queue.run())
            yield
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
