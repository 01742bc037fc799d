"""A real API server (etcd and kube-apiserver, no kubelet, no controllers), and hands that play the node's part."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pytest

from qvirt_cluster.build import PROGRAMS, finished_builds
from qvirt_cluster.layout import cache_directory
from qvirt_crds import schema
from qvirt_kube.client import Kube
from qvirt_kube.errors import Conflict, NotFound
from qvirt_operator.arguments import parse
from qvirt_operator.main import reconciler
from qvirt_operator.watch import watching
from qvirt_operator.work import WorkQueue

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "operator" / "manifests"
_STARTED_IN: Final = 90.0

Object = dict[str, Any]
_T = TypeVar("_T")


def binaries() -> Path | None:
    """The folder with kube-apiserver: K8S_BIN_DIR, else what `cluster/cluster.py build` has left."""
    if given := os.environ.get("K8S_BIN_DIR"):
        return Path(given)
    return next(iter(finished_builds(cache_directory(os.environ))), None)


class ApiServer:
    """:param tokens: user name -> bearer token."""

    def __init__(self, state: Path, port: int, tokens: dict[str, str]) -> None:
        self.state = state
        self.port = port
        self._tokens = tokens

    @property
    def ca(self) -> Path:
        return self.state / "pki" / "apiserver.crt"

    def kubeconfig(self, user: str = "admin") -> str:
        """A file that lets act as this user."""
        path = self.state / f"{user.replace(':', '-')}.kubeconfig"
        server = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self.ca)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(document))
        return str(path)

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        """:raise AssertionError: it failed; the message is what it said."""
        done = subprocess.run(
            ["kubectl", f"--kubeconfig={self.kubeconfig()}", *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


CONTROLLER: Final = "system:serviceaccount:kubevirt:virt-controller"


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """etcd and kube-apiserver on ports of their own, with our CRDs and virt-controller's RBAC in them."""
    folder = binaries()
    etcd = shutil.which("etcd")
    if folder is None or etcd is None or shutil.which("kubectl") is None:
        pytest.skip(f"needs etcd, kubectl and {', '.join(PROGRAMS)}: cluster/cluster.py build")
    state = tmp_path_factory.mktemp("apiserver")
    tokens = {"admin": secrets.token_hex(16), CONTROLLER: secrets.token_hex(16)}
    lines = [f'{tokens["admin"]},admin,1,"system:masters"']
    groups = '"system:serviceaccounts,system:serviceaccounts:kubevirt,system:authenticated"'
    lines.append(f"{tokens[CONTROLLER]},{CONTROLLER},2,{groups}")
    (state / "tokens.csv").write_text("\n".join(lines) + "\n")
    _service_account_key(state)
    etcd_port, peer_port, port = _free_ports(3)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(_start(state, _etcd(etcd, state, etcd_port, peer_port)))
        argv = _apiserver(folder / "kube-apiserver", state, etcd_port, port)
        processes.append(_start(state, argv))
        server = ApiServer(state, port, tokens)
        _await_ready(server, processes)
        _install(server)
        yield server
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=20)
        shutil.rmtree(state, ignore_errors=True)


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


def _service_account_key(state: Path) -> None:
    key = state / "service-account.key"
    command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def _free_ports(count: int) -> list[int]:
    with_ports = [socket.socket() for _ in range(count)]
    for one in with_ports:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in with_ports]
    for one in with_ports:
        one.close()
    return ports


def _etcd(program: str, state: Path, port: int, peer_port: int) -> list[str]:
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    return [
        program,
        "--name=test",
        f"--data-dir={state}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=test={peer}",
        "--unsafe-no-fsync",
    ]


def _apiserver(program: Path, state: Path, etcd_port: int, port: int) -> list[str]:
    key = f"{state}/service-account.key"
    return [
        str(program),
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--cert-dir={state}/pki",
        f"--token-auth-file={state}/tokens.csv",
        "--authorization-mode=RBAC",
        # No controller makes service accounts here.
        "--disable-admission-plugins=ServiceAccount",
        "--service-cluster-ip-range=10.99.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--shutdown-delay-duration=0s",
        "--profiling=false",
    ]


def _start(state: Path, argv: list[str]) -> subprocess.Popen[bytes]:
    log = state / f"{Path(argv[0]).name}.log"
    with log.open("wb") as output:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=state
        )


def _await_ready(server: ApiServer, processes: list[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + _STARTED_IN
    while True:
        for process in processes:
            assert process.poll() is None, (server.state / "kube-apiserver.log").read_text()[-2000:]
        try:
            context = ssl.create_default_context(cafile=str(server.ca))
            url = f"https://127.0.0.1:{server.port}/readyz"
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError as error:
            if time.monotonic() > end:
                raise TimeoutError("kube-apiserver is not ready") from error
        time.sleep(0.2)


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

    async def run(self, pod: Object) -> None:
        """Scheduled, all containers running."""
        await self.bind(pod)
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
async def controller(
    api_server: ApiServer, namespace: str, monkeypatch: pytest.MonkeyPatch
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
        queue = WorkQueue(reconciler(connection, arguments))
        async with watching(connection, queue.nudge, namespace):
            working = asyncio.create_task(queue.run())
            yield
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
