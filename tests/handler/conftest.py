"""A real API server with a VMI's CRD, a node and a namespace; and a launcher where a pod's would be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.control_plane import ApiServer, control_plane, free_ports

from qvirt_crds.names import INSTALL_NAMESPACE
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError

ROOT = Path(__file__).resolve().parents[2]
DEMO_DISK = ROOT / "build/guest/demo-guest.qcow2"
NODE = "node-under-test"
VMIS = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
DEADLINE = 60.0

Object = dict[str, Any]


async def run(*argv: str) -> str:
    """A command's output; a failure shows what it said."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(DEADLINE):
        output, _ = await process.communicate()
    assert process.returncode == 0, f"{' '.join(argv)}: {output.decode(errors='replace')}"
    return output.decode(errors="replace")


async def until(what: str, look: Callable[[], Awaitable[Any]]) -> Any:
    """What ``look`` gives, as soon as it gives something."""
    last: object = None
    try:
        async with asyncio.timeout(DEADLINE):
            while True:
                last = await look()
                if last:
                    return last
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"never: {what}; last: {last!r}") from None


# --- API server ------------------------------------------------------------------------------------------------------


ACCOUNT = "system:serviceaccount:kubevirt:virt-handler"


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Up until the end of all tests."""
    with control_plane(tmp_path_factory.mktemp("apiserver"), (ACCOUNT,)) as server:
        yield server


class Api:
    """The administrator's view."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        self._uids: set[str] = set()

    async def create(self, vmi: Object) -> Object:
        """A VMI."""
        created = await self.kube.create(VMIS, vmi)
        self._uids.add(created["metadata"]["uid"])
        return created

    async def delete(self, name: str) -> None:
        """A VMI."""
        await self.kube.delete(f"{VMIS}/{name}")

    async def status(self, name: str) -> Object:
        """Of a VMI."""
        status: Object = (await self.kube.get(f"{VMIS}/{name}"))["status"]
        return status

    async def until_status(self, name: str, fits: Callable[[Object], object]) -> Object:
        """Its status, as soon as it fits."""

        async def look() -> Object | None:
            status = await self.status(name)
            return status if fits(status) else None

        found: Object = await until(f"a fitting status of {name}", look)
        return found

    async def condition(self, name: str, kind: str) -> Object | None:
        """A condition of it; None: it has none of the type."""
        found = (await self.status(name)).get("conditions") or []
        return next((c for c in found if c["type"] == kind), None)

    async def reasons(self, name: str) -> list[str]:
        """Of the Events about it, oldest first; not of one of that name in another test."""
        listed = await self.kube.get("/api/v1/namespaces/default/events")
        involved = [(e, e["involvedObject"]) for e in listed["items"]]
        about = [e for e, who in involved if who["name"] == name and who["uid"] in self._uids]
        return [e["reason"] for e in sorted(about, key=lambda e: str(e["metadata"]["name"]))]

    async def node(self) -> Object:
        """Metadata of the handler's node."""
        meta: Object = (await self.kube.get(f"/api/v1/nodes/{NODE}"))["metadata"]
        return meta


@pytest.fixture
async def api(api_server: ApiServer) -> AsyncIterator[Api]:
    """As the administrator, with CRD, node and the handler's own rights in place, and no VMIs."""
    async with Kube(api_server.kubeconfig("admin")) as kube:
        await until("the API server serves", lambda: _serves(kube))
        crd = yaml.safe_load((ROOT / "crds/virtualmachineinstances.yaml").read_text())
        await _put(kube, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        await _put(kube, "/api/v1/nodes", {"metadata": {"name": NODE}})
        rights = (ROOT / "operator/manifests/virt-handler.yaml").read_text()
        await _put(kube, "/api/v1/namespaces", {"metadata": {"name": INSTALL_NAMESPACE}})
        for document in yaml.safe_load_all(rights):
            plural = f"{document['kind'].lower()}s"
            if document["kind"].startswith("ClusterRole"):
                await _put(kube, f"/apis/rbac.authorization.k8s.io/v1/{plural}", document)
            elif document["kind"].startswith("Role"):
                place = f"namespaces/{INSTALL_NAMESPACE}/{plural}"
                await _put(kube, f"/apis/rbac.authorization.k8s.io/v1/{place}", document)
        await until("the kind is served", lambda: _lists(kube))
        try:
            yield Api(kube)
        finally:
            for vmi in (await kube.get(VMIS))["items"]:
                await kube.delete(f"{VMIS}/{vmi['metadata']['name']}")


@pytest.fixture
def eventually() -> Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]:
    """`until`, for tests."""
    return until


async def _serves(kube: Kube) -> bool:
    with contextlib.suppress(KubeError):
        await kube.get("/api/v1/namespaces/default")
        return True
    return False


async def _lists(kube: Kube) -> bool:
    with contextlib.suppress(KubeError):
        await kube.get(VMIS)
        return True
    return False


async def _put(kube: Kube, collection: str, body: Object) -> None:
    with contextlib.suppress(KubeError):
        await kube.create(collection, body)
        return
    await kube.get(f"{collection}/{body['metadata']['name']}")


# --- pod -------------------------------------------------------------------------------------------------------------


class Pod:
    """A launcher in namespaces and a control group as kubelet and container runtime would make them.

    The node's side of its cable is a namespace, too: nothing of this machine's network is touched.
    """

    def __init__(self, folder: Path) -> None:
        self.uid = str(uuid.uuid4())
        self.folder = folder
        self.name = f"qvh{os.getpid()}-{self.uid[:4]}"
        self.node = f"{self.name}-node"
        self.pod = f"{self.name}-pod"
        self.cgroup = Path(f"/sys/fs/cgroup/unified/qvirt-test/pod{self.uid}")
        if not self.cgroup.parents[1].is_dir():
            self.cgroup = Path(f"/sys/fs/cgroup/qvirt-test/pod{self.uid}")
        self.address = "10.99.77.2"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Network and launcher; the latter waits for its guest."""
        for space in (self.node, self.pod):
            await run("ip", "netns", "add", space)
            await run("ip", "-n", space, "link", "set", "lo", "up")
        cable = ("ip", "-n", self.node, "link", "add", "veth0", "type", "veth")
        await run(*cable, "peer", "name", "eth0", "netns", self.pod)
        await run("ip", "-n", self.node, "addr", "add", "10.99.77.1/24", "dev", "veth0")
        await run("ip", "-n", self.node, "link", "set", "veth0", "up")
        await run("ip", "-n", self.pod, "addr", "add", f"{self.address}/24", "dev", "eth0")
        await run("ip", "-n", self.pod, "link", "set", "eth0", "up")
        await run("ip", "-n", self.pod, "route", "add", "default", "via", "10.99.77.1")
        self.cgroup.mkdir(parents=True)
        script = (
            f"echo $$ >{self.cgroup}/cgroup.procs\n"
            "mount -t tmpfs tmpfs /run; mkdir -p /run/qvirt /run/kubevirt-image-volume/root/disk\n"
            "chown 107:107 /run/qvirt\n"
            f"cp {DEMO_DISK} /run/kubevirt-image-volume/root/disk/\n"
            f"exec {sys.executable} -P -m qvirt_launcher.main --pod --run-dir /var/run/qvirt"
            f" --user 107:107 2>{self.folder}/launcher.log"
        )
        self._process = await asyncio.create_subprocess_exec(
            *(
                "nsenter",
                f"--net=/run/netns/{self.pod}",
                "unshare",
                "--pid",
                "--fork",
                "--kill-child",
            ),
            *("--mount-proc", "--mount", "sh", "-ec", script),
            stdin=subprocess.DEVNULL,
        )

    @property
    def log(self) -> str:
        """The launcher's."""
        path = self.folder / "launcher.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def launcher(self) -> int:
        """The launcher's process number, seen from the node."""
        for line in (self.cgroup / "cgroup.procs").read_text().split():
            words = Path(f"/proc/{line}/cmdline").read_bytes().split(b"\0")
            if b"qvirt_launcher.main" in words:
                return int(line)
        raise AssertionError(f"no launcher: {self.log}")

    def vmi(self, binding: str = "bridge", **more: Any) -> Object:
        """As virt-controller leaves it to the handler."""
        interface: Mapping[str, object] = {"name": "default", binding: {}}
        return {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {
                "name": f"demo-{binding}",
                "namespace": "default",
                "labels": {"kubevirt.io/nodeName": NODE},
            },
            "spec": {
                "domain": {
                    "memory": {"guest": "64Mi"},
                    "devices": {
                        "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                        "interfaces": [interface],
                    },
                },
                "networks": [{"name": "default", "pod": {}}],
                "volumes": [{"name": "root", "containerDisk": {"image": "demo"}}],
                **more,
            },
            "status": {
                "phase": "Scheduled",
                "nodeName": NODE,
                "activePods": {self.uid: NODE},
                "phaseTransitionTimestamps": [
                    {"phase": "Scheduled", "phaseTransitionTimestamp": "2026-01-01T00:00:00Z"}
                ],
                "conditions": [
                    {"type": "Ready", "status": "False", "reason": "GuestNotRunning"},
                ],
            },
        }

    async def answers(self) -> bool:
        """Whether something at the pod's address answers the node."""
        ping = ("ping", "-c", "1", "-W", "1", self.address)
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self.node, *ping), stdout=subprocess.DEVNULL
        )
        return await process.wait() == 0

    async def exit_code(self) -> int:
        """The launcher's, once it has ended."""
        assert self._process is not None
        async with asyncio.timeout(DEADLINE):
            return await self._process.wait()

    async def aclose(self) -> None:
        """Remove everything."""
        if self._process is not None:
            if self._process.returncode is None:
                # unshare kills what is below it.
                self._process.kill()
            await self._process.wait()
        for space in (self.pod, self.node):
            await run("ip", "netns", "del", space)
        await until("the control group is empty", self._remove_cgroup)

    async def _remove_cgroup(self) -> bool:
        with contextlib.suppress(OSError):
            self.cgroup.rmdir()
        with contextlib.suppress(OSError):
            self.cgroup.parent.rmdir()
        return not self.cgroup.exists()


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    """A pod whose launcher waits; its one image, mounted, has the demo guest's disk."""
    if not DEMO_DISK.exists():
        pytest.skip("needs the demo guest: make guest")
    pod = Pod(tmp_path)
    try:
        await pod.start()
        yield pod
    finally:
        await pod.aclose()


# --- handler ---------------------------------------------------------------------------------------------------------


class Handler:
    """``python -m qvirt_handler`` as a process."""

    def __init__(self, kubeconfig: str, folder: Path) -> None:
        self.state_dir = folder / "state"
        self._kubeconfig = kubeconfig
        self._log = folder / "handler.log"
        self.port, self.node_port = free_ports(2)
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Again, too."""
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "qvirt_handler", "--node-name", NODE),
                *("--kubeconfig", self._kubeconfig, "--state-dir", str(self.state_dir)),
                *("--health", f"http://127.0.0.1:{self.port}/healthz"),
                *("--port", str(self.node_port)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        """As the kernel does when memory is short."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """As kubelet does; its exit code."""
        assert self.process is not None
        self.process.terminate()
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


@pytest.fixture
async def handler(api_server: ApiServer, api: Api, tmp_path: Path) -> AsyncIterator[Handler]:
    """Not started yet. With the rights of its service account, no more."""
    handler = Handler(api_server.kubeconfig(ACCOUNT), tmp_path)
    try:
        yield handler
    finally:
        if handler.process is not None and handler.process.returncode is None:
            await handler.kill()
        print(handler.log)  # noqa: T201  shown when the test fails
