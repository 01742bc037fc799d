"""The API on a TLS server of its own, with an API server and a virt-handler that speak their protocols."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from tests.api.virtctl import Virtctl

from qvirt_api.authority import Identity, Pair, issue, make_authority
from qvirt_api.subresources import information
from qvirt_api.subresources.authentication import FrontProxySource
from qvirt_api.subresources.call import Services
from qvirt_api.subresources.node import NodeAgents
from qvirt_api.subresources.page_files import PageFiles
from qvirt_api.subresources.routes import routes
from qvirt_crds.names import HANDLER_CLIENT_CN, HANDLER_SERVER_NAME, PLAIN_STREAM
from qvirt_kube.client import Kube
from qvirt_kube.errors import NotFound

Object = dict[str, Any]
USER = {"X-Remote-User": "jane", "X-Remote-Group": "developers"}
_LIFE = timedelta(days=1)


class Pki:
    """Two authorities: the cluster's front proxy's, and qvirt's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        now = datetime.now(UTC)
        self.front = make_authority("front-proxy-ca", now, _LIFE)
        self.own = make_authority("qvirt", now, _LIFE)

    def server(self, authority: Pair, name: str, clients: Pair | None = None) -> ssl.SSLContext:
        """:param clients: who may sign clients' certificates; without one nobody is asked."""
        identity = Identity(common_name=name, dns_names=(name,), usage="server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context, authority, identity)
        if clients is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=clients.certificate)
        return context

    def client(self, trusted: Pair, authority: Pair, name: str = "") -> ssl.SSLContext:
        """:param name: of the certificate to show; empty: none."""
        context = ssl.create_default_context(cadata=trusted.certificate)
        if name:
            self._load(context, authority, Identity(common_name=name, usage="client"))
        return context

    def _load(self, context: ssl.SSLContext, authority: Pair, identity: Identity) -> None:
        pair = issue(authority, identity, datetime.now(UTC), _LIFE)
        path = self._folder / f"{len(list(self._folder.iterdir()))}.pem"
        path.write_text(pair.certificate + pair.key)
        context.load_cert_chain(path)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


class FakeKube:
    """Objects by path; notes reviews and patches."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.reviews: list[Object] = []
        self.patches: list[tuple[str, object, dict[str, str]]] = []
        self.denied: str | None = None
        self.failure: Exception | None = None

    async def get(self, path: str, **_query: str) -> Object:
        if path.endswith("/pods"):
            return {"items": [o for p, o in self.objects.items() if p.startswith(f"{path}/")]}
        if path not in self.objects:
            raise NotFound(f"GET {path}", 404, "not found")
        return self.objects[path]

    async def create(self, path: str, body: Object) -> Object:
        assert path.endswith("/subjectaccessreviews")
        if self.failure is not None:
            raise self.failure
        self.reviews.append(body["spec"])
        reason = self.denied
        return {"status": {"allowed": reason is None, "reason": reason or ""}}

    async def patch(self, path: str, body: object, kind: str, **query: str) -> Object:
        assert kind == "json"
        if self.failure is not None:
            raise self.failure
        self.patches.append((path, body, query))
        return {}

    # --- what is in the cluster ---------------------------------------------------------------------------------------

    def put(self, plural: str, name: str, spec: Object, status: Object) -> Object:
        metadata = {"name": name, "namespace": "ns", "uid": f"uid-of-{name}"}
        found = {"metadata": metadata, "spec": spec, "status": status}
        self.objects[f"/apis/kubevirt.io/v1/namespaces/ns/{plural}/{name}"] = found
        return found

    def vm(self, strategy: str = "Always", name: str = "vm", **status: object) -> Object:
        spec = {"runStrategy": strategy, "template": {"spec": {"domain": {}}}}
        return self.put("virtualmachines", name, spec, {"printableStatus": "Stopped", **status})

    def vmi(self, phase: str = "Running", name: str = "vm", **spec: object) -> Object:
        found = {"domain": {"devices": {}}, **spec}
        status: Object = {"phase": phase, "nodeName": "node-1"}
        status["interfaces"] = [{"name": "default", "ipAddress": "127.0.0.1"}]
        return self.put("virtualmachineinstances", name, found, status)

    def condition(self, kind: str, name: str = "vm") -> None:
        vmi = self.objects[f"/apis/kubevirt.io/v1/namespaces/ns/virtualmachineinstances/{name}"]
        conditions = vmi["status"].setdefault("conditions", [])
        conditions.append({"type": kind, "status": "True"})


@pytest.fixture
def cluster() -> FakeKube:
    return FakeKube()


class FakeHandler:
    """virt-handler's server, as `qvirt_handler.node_server` has it: one session of a kind, the newer wins."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.answer: Callable[[], web.Response] = web.Response
        self.sessions: dict[str, web.Request] = {}
        self.port = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        certificate = request.get_extra_info("peercert")
        assert certificate, "virt-api shows its certificate"
        verb = request.match_info["verb"]
        self.calls.append((request.method, verb, await request.read(), dict(request.query)))
        if request.headers.get("Upgrade", "") != "websocket":
            return self.answer()
        refused = self.answer()
        if refused.status != 200:
            return refused
        return await self._echo(request, verb)

    async def _echo(self, request: web.Request, verb: str) -> web.StreamResponse:
        """Sends back what it gets; ``bye`` ends the session, ``crash`` cuts it."""
        ws = web.WebSocketResponse(protocols=(PLAIN_STREAM,), compress=False)
        await ws.prepare(request)
        if before := self.sessions.get(verb):
            assert before.transport is not None
            cast(asyncio.WriteTransport, before.transport).abort()
        self.sessions[verb] = request
        try:
            await ws.send_bytes(f"this is {verb}\n".encode())
            async for message in ws:
                if message.data == b"bye":
                    await ws.close()
                elif message.data == b"crash":
                    cast(asyncio.WriteTransport, request.transport).abort()
                else:
                    await ws.send_bytes(message.data)
        finally:
            if self.sessions.get(verb) is request:
                del self.sessions[verb]
        return ws


@contextlib.asynccontextmanager
async def serving(app: web.Application, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a server of this machine."""
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@pytest.fixture
async def handler(pki: Pki, cluster: FakeKube) -> AsyncIterator[FakeHandler]:
    handler = FakeHandler()
    app = web.Application()
    base = "/v1/namespaces/{namespace}/virtualmachineinstances/{name}"
    app.router.add_route("*", f"{base}/{{verb:.*}}", handler.serve)
    tls = pki.server(pki.own, HANDLER_SERVER_NAME, pki.own)
    pod = {"metadata": {"name": "virt-handler-x"}, "status": {"podIP": "127.0.0.1"}}
    cluster.objects["/api/v1/namespaces/kubevirt/pods/virt-handler-x"] = pod
    async with serving(app, tls) as handler.port:
        yield handler


class Api:
    """The API under test."""

    def __init__(self, services: Services, pki: Pki, port: int) -> None:
        self.services = services
        self.pki = pki
        self.url = f"https://localhost:{port}"

    def client(
        self,
        headers: dict[str, str] | None = None,
        certificate: str = "front-proxy-client",
        version: str = "v1",
    ) -> Virtctl:
        """What arrives from a user through the API server's aggregation layer."""
        tls = self.pki.client(self.pki.own, self.pki.front, certificate)
        return Virtctl(self.url, tls, "ns", USER if headers is None else headers, version)


@pytest.fixture
def novnc(tmp_path: Path) -> Path:
    """As Debian's package lays it out."""
    root = tmp_path / "novnc"
    for name in ("core/rfb.js", "core/util/int.js", "vendor/pako/lib/zlib/inflate.js", "app/ui.js"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"// {name}")
    (root / "core/notes.txt").write_text("no script")
    return root


@pytest.fixture
async def api(pki: Pki, cluster: FakeKube, handler: FakeHandler, novnc: Path) -> AsyncIterator[Api]:
    kube = cast(Kube, cluster)
    cluster.objects[
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    ] = {
        "data": {
            "requestheader-client-ca-file": pki.front.certificate,
            "requestheader-allowed-names": '["front-proxy-client"]',
            "requestheader-username-headers": '["X-Remote-User"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        }
    }
    told: list[str] = []
    front = FrontProxySource(kube, told.append)
    await front.refresh()
    assert told == [pki.front.certificate]
    client = pki.client(pki.own, pki.own, HANDLER_CLIENT_CN)
    agents = NodeAgents(kube, lambda: client, "kubevirt", handler.port)
    services = Services(kube, front, agents, information.about(), PageFiles(novnc))
    app = web.Application()
    app.add_routes(routes(services))

    async def close(_app: web.Application) -> None:
        await services.sessions.close()

    app.on_shutdown.append(close)
    async with serving(app, pki.server(pki.own, "localhost", pki.front)) as port:
        yield Api(services, pki, port)


@pytest.fixture
async def jane(api: Api) -> AsyncIterator[Virtctl]:
    """A user who may do everything."""
    async with api.client() as client:
        yield client


def descriptors() -> int:
    """Open ones of this process."""
    return len(os.listdir("/proc/self/fd"))


async def until(what: str, holds: Callable[[], bool], deadline: float = 20) -> None:
    """:raise TimeoutError: not in time."""
    try:
        async with asyncio.timeout(deadline):
            while not holds():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise TimeoutError(f"{what}: not in {deadline} s") from None


@pytest.fixture
async def guest_port() -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Starts a TCP service of the guest; gives its port."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        ) -> int:
            async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    with contextlib.suppress(ConnectionError):
                        await serve(reader, writer)
                finally:
                    writer.close()

            server = await asyncio.start_server(guarded, "127.0.0.1", 0)
            await stack.enter_async_context(server)
            return int(server.sockets[0].getsockname()[1])

        yield start
