"""virt-api, with the rights of its manifest, and a real API server that calls its webhooks by its Service's name.

The Service is of type ExternalName, which the API server resolves to this machine; names, certificates, paths and
failure policies are the manifests'.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pytest
import yaml
from tests.control_plane import ApiServer, control_plane

from qvirt_api.keeper import Keeper, Report
from qvirt_api.server import application, serving
from qvirt_api.state import State
from qvirt_api.subresources.joining import Subresources
from qvirt_api.tls import ClientTls, ServerTls
from qvirt_crds import names, schema
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError, NotFound

ROOT: Final = Path(__file__).resolve().parents[2]
MANIFESTS: Final = ROOT / "operator" / "manifests"
_ACCOUNT: Final = "system:serviceaccount:kubevirt:"
API: Final = f"{_ACCOUNT}virt-api"
CONTROLLER: Final = f"{_ACCOUNT}virt-controller"
HANDLER: Final = f"{_ACCOUNT}virt-handler"
#: Somebody who may do everything with virtual machines, and is none of ours.
USER: Final = "system:serviceaccount:people:user"
API_SERVICES: Final = ("v1.subresources.kubevirt.io", "v1alpha3.subresources.kubevirt.io")

Object = dict[str, Any]
_T = TypeVar("_T")


async def eventually(look: Callable[[], Awaitable[_T | None]], within: float = 30) -> _T:
    """What `look` gives as soon as it gives something.

    :raise TimeoutError: it has not in so many seconds.
    """
    async with asyncio.timeout(within):
        while True:
            found = await look()
            if found is not None:
                return found
            await asyncio.sleep(0.1)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """With qvirt's definitions and rights, and without webhooks."""
    state = tmp_path_factory.mktemp("apiserver")
    with control_plane(state, [API, CONTROLLER, HANDLER, USER]) as server:
        definitions = schema.definitions()
        crds = {"apiVersion": "v1", "kind": "List", "items": definitions}
        server.kubectl("apply", "-f", "-", stdin=msgspec.json.encode(crds).decode())
        kinds = [f"crd/{definition['metadata']['name']}" for definition in definitions]
        server.kubectl("wait", "--for=condition=Established", "--timeout=30s", *kinds)
        server.kubectl("apply", "-f", str(MANIFESTS / "00-namespace.yaml"))
        for name in (
            "virt-api.yaml",
            "subresources.yaml",
            "virt-controller.yaml",
            "virt-handler.yaml",
        ):
            for document in documents(name):
                if "Role" in document["kind"] or document["kind"] == "ServiceAccount":
                    server.kubectl("apply", "-f", "-", stdin=msgspec.json.encode(document).decode())
        role = "--clusterrole=qvirt:virt-controller"
        server.kubectl("create", "clusterrolebinding", "user", role, "--serviceaccount=people:user")
        rest = (
            "--resource=virtualmachines,virtualmachineinstances,virtualmachineinstancereplicasets"
        )
        server.kubectl("create", "clusterrole", "people", "--verb=*", rest)
        server.kubectl(
            *("create", "clusterrolebinding", "people", "--clusterrole=people"),
            "--serviceaccount=people:user",
        )
        yield server


def documents(name: str) -> list[Object]:
    """Of a manifest."""
    return [d for d in yaml.safe_load_all((MANIFESTS / name).read_text()) if d]


@pytest.fixture
async def kube(api_server: ApiServer) -> AsyncIterator[Kube]:
    """A connection as the administrator."""
    async with Kube(api_server.kubeconfig()) as connection:
        yield connection


@pytest.fixture
async def user(api_server: ApiServer) -> AsyncIterator[Kube]:
    """A connection as an ordinary user."""
    async with Kube(api_server.kubeconfig(USER)) as connection:
        yield connection


@pytest.fixture
async def controller(api_server: ApiServer) -> AsyncIterator[Kube]:
    """A connection as virt-controller."""
    async with Kube(api_server.kubeconfig(CONTROLLER)) as connection:
        yield connection


@pytest.fixture
async def namespace(kube: Kube) -> str:
    """A fresh one."""
    name = f"test-{secrets.token_hex(4)}"
    await kube.create("/api/v1/namespaces", {"metadata": {"name": name}})
    return name


class VirtApi:
    """A running virt-api."""

    def __init__(self, stack: AsyncExitStack, keeper: Keeper, state: State, tls: ServerTls) -> None:
        self._stack = stack
        self.keeper = keeper
        self.state = state
        self.tls = tls

    async def stop(self) -> None:
        """Gone, and its port closed."""
        await self._stack.aclose()


@pytest.fixture
async def virt_api(api_server: ApiServer, kube: Kube) -> AsyncIterator[VirtApi]:
    """Serving, trusted by the API server, and gone when the test ends, webhooks included."""
    state, tls, node_tls = State(), ServerTls(), ClientTls()
    await _forget_certificates(kube)

    def tell(report: Report) -> None:
        if report.serving is not None:
            tls.serve(report.serving)
        state.bundle = report.bundle
        node_tls.update(report.client, report.bundle)
        state.ready = state.ready or report.settled

    async def is_ready() -> bool | None:
        return state.ready or None

    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(Kube(api_server.kubeconfig(API)))
        keeper = Keeper(own, "kubevirt", tell)
        app = application(own, state)
        subresources = Subresources(own, "kubevirt", tls.trust_clients, node_tls.context)
        subresources.join(app)
        await subresources.look()
        port = await stack.enter_async_context(serving(app, tls, "127.0.0.1", 0))
        try:
            _register(api_server, port)
            await stack.enter_async_context(_running(keeper.run()))
            await stack.enter_async_context(_running(subresources.follow()))
            await eventually(is_ready)
            await _await_conversion(kube)
            yield VirtApi(stack, keeper, state, tls)
        finally:
            api_server.kubectl("delete", "-f", str(MANIFESTS / "webhooks.yaml"))
            api_server.kubectl("delete", "apiservice", *API_SERVICES)
    # The API server keeps connections open; it takes a moment to close them as well.
    await asyncio.sleep(0.5)


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _forget_certificates(kube: Kube) -> None:
    """Those of an earlier test may be of another time: its clock is its own."""
    core = "/api/v1/namespaces/kubevirt"
    kept = (names.CA_SECRET, names.API_SECRET, names.HANDLER_SECRET, names.HANDLER_CLIENT_SECRET)
    paths = [f"{core}/secrets/{name}" for name in kept]
    for path in (*paths, f"{core}/configmaps/{names.CA_CONFIG_MAP}"):
        with suppress(NotFound):
            await kube.delete(path)


def _register(server: ApiServer, port: int) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "virt-api", "namespace": "kubevirt"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    items = [service]
    for configuration in documents("webhooks.yaml"):
        for webhook in configuration["webhooks"]:
            config = webhook["clientConfig"]
            webhook["clientConfig"] = {"service": {**config["service"], "port": port}}
        items.append(configuration)
    for document in documents("subresources.yaml"):
        if document["kind"] == "APIService":
            document["spec"]["service"]["port"] = port
            items.append(document)
    crd = next(d for d in schema.definitions() if "conversion" in d["spec"])
    crd["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"] = port
    body = {"apiVersion": "v1", "kind": "List", "items": [*items, crd]}
    server.kubectl("apply", "-f", "-", stdin=msgspec.json.encode(body).decode())


async def _await_conversion(kube: Kube) -> None:
    """The API server learns of Services and configurations by watching."""
    trial = {
        "apiVersion": "kubevirt.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"generateName": "trial-"},
        "spec": {"domain": {"resources": {"requests": {"memory": "64M"}}, "devices": {}}},
    }

    path = "/apis/kubevirt.io/v1alpha1/namespaces/default/virtualmachines"

    async def look() -> bool | None:
        try:
            created = await kube.create(path, trial, dryRun="All")
        except KubeError:
            return None
        return "uuid" in created["spec"]["domain"].get("firmware", {}) or None

    await eventually(look)


async def kubectl(server: ApiServer, *argv: str, stdin: str | None = None) -> str:
    """In a thread: virt-api runs in this process and must answer meanwhile.

    :raise AssertionError: it failed; the message is what it said.
    """
    return await asyncio.to_thread(server.kubectl, *argv, stdin=stdin)
