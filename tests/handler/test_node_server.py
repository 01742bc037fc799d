"""The node server over real TLS, with a launcher that is played by its own server and by sockets that do as told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.handler.authority import Authority, objects

from qvirt_crds import agent
from qvirt_crds.names import HANDLER_CLIENT_CN, HANDLER_SERVER_CN, HANDLER_SERVER_NAME, PLAIN_STREAM
from qvirt_crds.report import VmReport
from qvirt_handler import finder
from qvirt_handler.finder import Process
from qvirt_handler.node_server import durations, relay
from qvirt_handler.node_server.credentials import Credentials
from qvirt_handler.node_server.reach import Reach
from qvirt_handler.node_server.server import NodeServer
from qvirt_kube.errors import NotFound, Unavailable
from qvirt_qmp.errors import CommandFailed
from qvirt_qmp.server import Server
from qvirt_qmp.session import Call

NODE = "n1"
UID = "5d307ca9-b3ef-428c-8861-06e72d69f223"
MIB = 1 << 20
VIEWERS = 50
BULK = 200 * MIB

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def vmi(name: str = "demo", **devices: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": "default", "uid": UID},
        "spec": {"domain": {"devices": {"autoattachPodInterface": False, **devices}}},
        "status": {"phase": "Running", "nodeName": NODE, "activePods": {"pod-one": NODE}},
    }


class Everywhere:
    """Finds this process, for any pod."""

    def find(self, pod_uid: str) -> Process:  # noqa: ARG002  the protocol's
        return Process(os.getpid())

    def belongs(self, process: Process, pod_uid: str) -> bool:  # noqa: ARG002  the protocol's
        return True


class Cluster:
    """As much of the API server as is asked."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.down = False

    async def get(self, path: str, **_: str) -> dict[str, Any]:
        if self.down:
            raise Unavailable(path, 503, "down")
        if path not in self.objects:
            raise NotFound(path, 404, "not found")
        return self.objects[path]

    def publish(self, credentials: Credentials) -> None:
        secret, bundle = objects(credentials)
        place = "/api/v1/namespaces/kubevirt"
        self.objects[f"{place}/secrets/kubevirt-virt-handler-certs"] = secret
        self.objects[f"{place}/configmaps/kubevirt-ca"] = bundle


class Guest:
    """A launcher's control socket, and what it was told."""

    def __init__(self) -> None:
        self.phase = "Running"
        self.running = True
        self.agent = True
        self.done: list[tuple[str, dict[str, object]]] = []
        self.server = Server(self.handle, greeting={"qemu": {"major": 0, "minor": 1, "micro": 0}})

    async def handle(self, call: Call) -> object:
        match call.command:
            case "vm-query":
                return VmReport(uid=UID, phase=self.phase)  # type: ignore[arg-type]
            case "query-status":
                return {"status": "running" if self.running else "paused", "running": self.running}
        if call.command.startswith("agent-") and not self.agent:
            raise CommandFailed(call.command, agent.AGENT_NOT_CONNECTED, "no agent")
        self.done.append((call.command, call.arguments))
        match call.command:
            case "vm-screenshot":
                return {"png": base64.b64encode(b"\x89PNG").decode()}
            case "agent-users":
                return {"metadata": {}, "items": [{"userName": "vera"}]}
            case "agent-filesystems":
                raise CommandFailed(call.command, agent.AGENT_TIMEOUT, "no answer")
            case "agent-info":
                raise CommandFailed(call.command, agent.AGENT_REFUSED, "not today")
            case "stop" | "cont":
                self.running = call.command == "cont"
        return {}


class World:
    """A node with one guest, and a client of virt-api's rank."""

    def __init__(self, run_dir: Path, folder: Path) -> None:
        self.run_dir = run_dir
        self.folder = folder
        self.authority = Authority()
        self.cluster = Cluster()
        self.known: dict[str, Any] | None = vmi()
        self.guest = Guest()
        reach = Reach(
            self.cluster,  # type: ignore[arg-type]
            NODE,
            Everywhere(),
            lambda namespace, name: (
                self.known if self.known and (namespace, name) == ("default", "demo") else None
            ),
        )
        self.server = NodeServer(self.cluster, reach, 0, rhythm=(0.05, 0.05))  # type: ignore[arg-type]
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """With certificates, unless the test has none yet."""
        await self.guest.server.listen(str(self.run_dir / "launcher.sock"), grade="admin")
        self._stack.push_async_callback(self.guest.server.aclose)
        task = asyncio.create_task(self.server.run(), name="node server")

        async def end() -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        self._stack.push_async_callback(end)

    async def open(self) -> None:
        """With certificates; returns when it serves."""
        self.cluster.publish(self.authority.handler())
        await until(lambda: self.server.port != 0)

    async def listen(self, name: str, serve: Serve) -> None:
        """A socket of the launcher's, or QEMU's."""

        async def serve_and_close(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
            try:
                await serve(r, w)
            finally:
                w.close()

        server = await asyncio.start_unix_server(serve_and_close, str(self.run_dir / name))
        self._stack.callback(server.close)

    @contextlib.asynccontextmanager
    async def client(
        self, common_name: str | None = HANDLER_CLIENT_CN, authority: Authority | None = None
    ) -> AsyncIterator[aiohttp.ClientSession]:
        """A session whose certificate is as given."""
        context = (authority or self.authority).client(self.folder, common_name)
        if authority is not None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield session

    def url(self, verb: str, name: str = "demo") -> str:
        base = f"https://127.0.0.1:{self.server.port}/v1/namespaces/default"
        return f"{base}/virtualmachineinstances/{name}/{verb}"

    async def ask(
        self,
        session: aiohttp.ClientSession,
        method: str,
        verb: str,
        body: str = "",
        name: str = "demo",
    ) -> tuple[int, Any]:
        """HTTP status, and the message of a Status or the whole body."""
        url = self.url(verb, name)
        async with session.request(
            method, url, data=body or None, server_hostname=HANDLER_SERVER_NAME
        ) as answer:
            if answer.content_type == "application/json":
                content = await answer.json()
                return answer.status, content.get("message", content)
            return answer.status, await answer.read()

    async def stream(
        self, session: aiohttp.ClientSession, kind: str = "console", query: str = ""
    ) -> aiohttp.ClientWebSocketResponse:
        return await session.ws_connect(
            self.url(kind) + query,
            protocols=(PLAIN_STREAM,),
            server_hostname=HANDLER_SERVER_NAME,
            max_msg_size=0,
        )

    async def aclose(self) -> None:
        await self._stack.aclose()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="qv") as name:
        monkeypatch.setattr(finder, "RUN_DIR", name)
        world = World(Path(name), tmp_path)
        try:
            await world.start()
            yield world
        finally:
            await world.aclose()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello ")
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()


# --- who is admitted -------------------------------------------------------------------------------------------------


async def test_only_virt_api_is_admitted(world: World) -> None:
    await world.open()
    async with world.client() as session:
        assert await world.ask(session, "GET", "userlist") == (
            200,
            {"metadata": {}, "items": [{"userName": "vera"}]},
        )
    for other in (HANDLER_SERVER_CN, "somebody", ""):
        async with world.client(other or " ") as session:
            code, message = await world.ask(session, "GET", "userlist")
            assert (code, message) == (403, f"only {HANDLER_CLIENT_CN} is admitted")
    async with world.client(None) as session:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await world.ask(session, "GET", "userlist")
    # The right name, signed by somebody else.
    async with world.client(HANDLER_CLIENT_CN, Authority()) as session:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await world.ask(session, "GET", "userlist")
    async with aiohttp.ClientSession() as session:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await session.get(world.url("userlist").replace("https", "http"))


async def test_it_waits_for_certificates_and_takes_what_is_whole(world: World) -> None:
    await asyncio.sleep(0.2)
    assert world.server.port == 0
    good = world.authority.handler()
    other = Authority().handler()
    for bad in (
        Credentials(certificate=b"x", key=good.key, authorities=good.authorities),
        Credentials(certificate=good.certificate, key=other.key, authorities=good.authorities),
        Credentials(certificate=good.certificate, key=good.key, authorities="x"),
        Credentials(certificate=good.certificate, key=b"", authorities=good.authorities),
        Credentials(certificate=good.certificate, key=good.key, authorities=""),
    ):
        world.cluster.publish(bad)
        await asyncio.sleep(0.15)
        assert world.server.port == 0
    await world.open()
    world.cluster.down = True
    await asyncio.sleep(0.15)
    async with world.client() as session:
        assert (await world.ask(session, "GET", "userlist"))[0] == 200


async def test_certificates_and_authorities_are_replaced_under_an_open_console(
    world: World,
) -> None:
    await world.listen("console.sock", echo)
    await world.open()
    port = world.server.port
    async with world.client() as old:
        ws = await world.stream(old)
        assert (await ws.receive_bytes()) == b"hello "

        # First both authorities are known, then the old one is dropped.
        successor = Authority("its successor")
        fresh = successor.handler()
        both = world.authority.bundle + successor.bundle
        world.cluster.publish(
            Credentials(certificate=fresh.certificate, key=fresh.key, authorities=both)
        )

        async def served_by(authority: Authority) -> bool:
            context = authority.client(world.folder, HANDLER_CLIENT_CN)
            connector = aiohttp.TCPConnector(ssl=context)
            async with aiohttp.ClientSession(connector=connector) as session:
                try:
                    return (await world.ask(session, "GET", "userlist"))[0] == 200
                except (aiohttp.ClientError, OSError):
                    return False

        async with asyncio.timeout(20):
            while not await served_by(successor):
                await asyncio.sleep(0.02)
        assert world.server.port == port
        world.cluster.publish(fresh)

        async def old_is_admitted() -> bool:
            context = successor.client(world.folder, None)
            certificate, key = world.authority.issue(HANDLER_CLIENT_CN)
            (world.folder / "old.pem").write_bytes(certificate + key)
            context.load_cert_chain(world.folder / "old.pem")
            connector = aiohttp.TCPConnector(ssl=context)
            async with aiohttp.ClientSession(connector=connector) as session:
                try:
                    return (await world.ask(session, "GET", "userlist"))[0] == 200
                except (aiohttp.ClientError, OSError):
                    return False

        async with asyncio.timeout(20):
            while await old_is_admitted():
                await asyncio.sleep(0.02)
        assert await served_by(successor)
        await ws.send_bytes(b"still here")
        assert (await ws.receive_bytes()) == b"still here"
        await ws.close()


# --- verbs -----------------------------------------------------------------------------------------------------------

CONFLICT = 'Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "demo": {}'.format


async def test_buttons(world: World) -> None:
    await world.open()
    async with world.client() as session:
        for verb, expected in (
            ("unpause", (409, CONFLICT("VMI is not paused"))),
            ("pause", (200, b"")),
            ("pause", (409, CONFLICT("VMI is already paused"))),
            ("softreboot", (409, CONFLICT("VMI is paused"))),
            ("reset", (200, b"")),
            ("unpause", (200, b"")),
            ("softreboot", (200, b"")),
            ("unfreeze", (200, b"")),
        ):
            assert await world.ask(session, "PUT", verb) == expected
        assert [command for command, _ in world.guest.done] == [
            "stop",
            "system_reset",
            "cont",
            "agent-shutdown",
            "agent-thaw",
        ]


async def test_bodies(world: World) -> None:
    await world.open()
    async with world.client() as session:
        assert (await world.ask(session, "PUT", "pause", '{"dryRun": ["All"]}'))[0] == 200
        assert world.guest.done == []
        assert (await world.ask(session, "PUT", "freeze"))[0] == 200
        assert (await world.ask(session, "PUT", "freeze", '{"unfreezeTimeout": "1m30s"}'))[0] == 200
        assert world.guest.done == [
            ("agent-freeze", {}),
            ("agent-freeze", {"unfreezeTimeoutSeconds": 90.0}),
        ]
        for body in ('{"unfreezeTimeout": "soon"}', "{", '{"dryRun": 1}'):
            assert (await world.ask(session, "PUT", "freeze", body))[0] == 400


@pytest.mark.parametrize(
    ("method", "verb", "code", "message"),
    [
        ("PUT", "pause", 409, CONFLICT("VM is not running")),
        ("PUT", "unpause", 409, CONFLICT("VMI is not running")),
        ("PUT", "softreboot", 409, CONFLICT("VM is not running")),
        ("PUT", "reset", 400, "Failed to reset non-running VMI with phase Running"),
        ("PUT", "freeze", 409, CONFLICT("VMI is not running")),
        ("GET", "guestosinfo", 409, CONFLICT("VMI is not running")),
        ("GET", "vnc/screenshot", 409, CONFLICT("VMI is not running")),
    ],
)
async def test_a_guest_that_does_not_run(
    world: World, method: str, verb: str, code: int, message: str
) -> None:
    await world.open()
    async with world.client() as session:
        for phase in ("Waiting", "Preparing", "Stopping", "Failed"):
            world.guest.phase = phase
            assert await world.ask(session, method, verb) == (code, message)
        await world.guest.server.aclose()
        assert await world.ask(session, method, verb) == (code, message)
    assert world.guest.done == []


async def test_an_agent_that_does_not_answer(world: World) -> None:
    await world.open()
    async with world.client() as session:
        assert await world.ask(session, "GET", "filesystemlist") == (
            504,
            "agent-filesystems: no answer",
        )
        assert await world.ask(session, "GET", "guestosinfo") == (500, "agent-info: not today")
        world.guest.agent = False
        missing = CONFLICT("VMI does not have guest agent connected")
        assert await world.ask(session, "GET", "guestosinfo") == (409, missing)
        assert await world.ask(session, "PUT", "freeze") == (409, missing)


async def test_a_soft_reboot_without_an_agent(world: World) -> None:
    await world.open()
    world.guest.agent = False
    async with world.client() as session:
        assert (await world.ask(session, "PUT", "softreboot"))[0] == 200
        assert world.guest.done == [("vm-soft-reboot", {})]
        world.known = vmi()
        world.known["spec"]["domain"]["features"] = {"acpi": {"enabled": False}}
        assert await world.ask(session, "PUT", "softreboot") == (
            409,
            CONFLICT("VMI neither have the agent connected nor the ACPI feature enabled"),
        )


async def test_pictures(world: World) -> None:
    await world.open()
    async with world.client() as session:
        assert await world.ask(session, "GET", "vnc/screenshot") == (200, b"\x89PNG")
        assert await world.ask(session, "GET", "vnc/screenshot?moveCursor=true") == (
            200,
            b"\x89PNG",
        )
        assert [arguments for _, arguments in world.guest.done] == [{"wake": False}, {"wake": True}]
        world.known = vmi(autoattachGraphicsDevice=False)
        answer = await world.ask(session, "GET", "vnc/screenshot")
        assert answer == (400, "No graphics devices are present.")


async def test_what_is_not_there(world: World) -> None:
    await world.open()
    path = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances/other"
    async with world.client() as session:
        missing = 'virtualmachineinstance.kubevirt.io "other" not found'
        assert await world.ask(session, "PUT", "pause", name="other") == (404, missing)
        world.cluster.objects[path] = vmi("other") | {"status": {"nodeName": "n2"}}
        code, message = await world.ask(session, "PUT", "pause", name="other")
        assert (code, message) == (404, "VMI default/other does not run on node n1")
        # The watch hasn't shown it yet.
        world.cluster.objects[path] = vmi("other")
        assert (await world.ask(session, "PUT", "pause", name="other"))[0] == 200
        world.cluster.down = True
        assert (await world.ask(session, "PUT", "pause", name="other"))[0] == 503
        assert (await world.ask(session, "GET", "pause"))[0] == 405
        assert (await world.ask(session, "PUT", "explode"))[0] == 404
        world.guest.phase = "Running"
        world.known = vmi()
        world.known["metadata"]["uid"] = "another"
        assert (await world.ask(session, "PUT", "unpause"))[0] == 409


# --- streams ---------------------------------------------------------------------------------------------------------


async def test_a_stream(world: World) -> None:
    await world.listen("console.sock", echo)
    await world.open()
    async with world.client() as session:
        ws = await world.stream(session)
        assert ws.protocol == PLAIN_STREAM
        assert await ws.receive_bytes() == b"hello "
        await ws.send_str("texts are nobody's")
        await ws.ping(b"x")
        await ws.send_bytes(b"abc")
        assert await ws.receive_bytes() == b"abc"
        await ws.close()
        await until(lambda: world.server.sessions == 0)


async def test_what_stands_against_a_stream_is_said_before_the_upgrade(world: World) -> None:
    await world.open()
    async with world.client() as session:
        for kind in ("console", "vnc"):
            assert await world.ask(session, "GET", kind) == (400, "VMI is not running")
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await world.stream(session, kind)
            assert refused.value.status == 400
        await world.listen("console.sock", echo)
        code, message = await world.ask(session, "GET", "console")
        assert (code, "websocket" in message) == (400, True)
        world.known = vmi(autoattachSerialConsole=False, autoattachGraphicsDevice=False)
        answers = [await world.ask(session, "GET", kind) for kind in ("console", "vnc")]
        assert answers == [
            (400, "No serial consoles are present."),
            (400, "No graphics devices are present."),
        ]
    assert world.server.sessions == 0


async def test_a_new_session_takes_over(world: World) -> None:
    await world.listen("console.sock", echo)
    await world.listen("vnc.sock", echo)
    await world.open()
    async with world.client() as session:
        screen = await world.stream(session, "vnc")
        first = await world.stream(session)
        assert await first.receive_bytes() == b"hello "
        second = await world.stream(session)
        assert await second.receive_bytes() == b"hello "
        message = await first.receive()
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        # No close frame was there.
        assert first.close_code == 1006
        await second.send_bytes(b"mine")
        assert await second.receive_bytes() == b"mine"
        assert world.server.sessions == 2

        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await world.stream(session, "vnc", "?preserveSession=true")
        assert refused.value.status == 503
        assert await screen.receive_bytes() == b"hello "
        for ws in (screen, second):
            await ws.close()
        await until(lambda: world.server.sessions == 0)
        third = await world.stream(session, "vnc", "?preserveSession=true")
        await third.close()


async def test_what_the_guest_says_at_the_end_arrives_whole(world: World) -> None:
    block = os.urandom(MIB)

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(BULK // MIB):
            writer.write(block)
            await writer.drain()

    await world.listen("vnc.sock", flood)
    await world.open()
    expected = hashlib.sha256(block * (BULK // MIB)).digest()
    seen, count = hashlib.sha256(), 0
    async with world.client() as session:
        ws = await world.stream(session, "vnc")
        async for message in ws:
            assert message.type == aiohttp.WSMsgType.BINARY
            seen.update(message.data)
            count += len(message.data)
        assert (count, ws.close_code) == (BULK, 1000)
    assert seen.digest() == expected


async def test_what_the_client_says_before_it_closes_arrives_whole(world: World) -> None:
    seen = hashlib.sha256()
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        count = 0
        while chunk := await reader.read(65536):
            seen.update(chunk)
            count += len(chunk)
        ended.set_result(count)

    await world.listen("vnc.sock", swallow)
    await world.open()
    block = os.urandom(MIB)
    async with world.client() as session:
        ws = await world.stream(session, "vnc")
        for _ in range(BULK // MIB):
            await ws.send_bytes(block)
        await ws.close()
        async with asyncio.timeout(60):
            assert await ended == BULK
    assert seen.digest() == hashlib.sha256(block * (BULK // MIB)).digest()


async def test_a_client_that_does_not_read_makes_the_guest_wait(world: World) -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            while sent < BULK:
                writer.write(b"x" * MIB)
                await writer.drain()
                sent += MIB

    await world.listen("vnc.sock", flood)
    await world.open()
    async with world.client() as session:
        ws = await world.stream(session, "vnc")
        await until(lambda: sent > 0)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.5)
        # What lies in the buffers of kernel, TLS and both processes: no more.
        assert sent < 32 * MIB
        # It lets go of it all at once.
        assert ws._response.connection is not None
        transport = ws._response.connection.transport
        assert transport is not None
        transport.abort()
        await until(lambda: world.server.sessions == 0)


async def test_a_client_that_vanished_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PING_SECONDS", 0.05)
    monkeypatch.setattr(relay, "DEAD_SECONDS", 1.0)
    await world.listen("console.sock", echo)
    await world.open()
    async with world.client() as session:
        there = await session.ws_connect(
            world.url("console"), server_hostname=HANDLER_SERVER_NAME, autoping=True
        )
        reading = asyncio.create_task(there.receive_bytes(), name="first")
        assert await reading == b"hello "
        # A client that answers pings stays as long as it likes.
        idle = asyncio.create_task(there.receive(), name="idle")
        await asyncio.sleep(2)
        assert world.server.sessions == 1
        idle.cancel()
        await asyncio.wait({idle})
        await there.close()
        await until(lambda: world.server.sessions == 0)
        await session.ws_connect(
            world.url("console"), server_hostname=HANDLER_SERVER_NAME, autoping=False
        )
        await until(lambda: world.server.sessions == 1)
        await until(lambda: world.server.sessions == 0)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_fifty_consoles_opened_and_dropped_leave_nothing(world: World) -> None:
    await world.listen("console.sock", echo)
    await world.open()
    async with world.client() as session:
        warm = await world.stream(session)
        await warm.close()
    await until(lambda: world.server.sessions == 0)
    await asyncio.sleep(0.3)
    before, tasks = descriptors(), len(asyncio.all_tasks())
    for number in range(VIEWERS):
        async with world.client() as session:
            ws = await world.stream(session)
            assert await ws.receive_bytes() == b"hello "
            if number % 3 == 0:
                await ws.close()
            elif number % 3 == 1:
                await ws.send_bytes(b"last words")
            # else: gone without a word, together with its connection
    await until(lambda: world.server.sessions == 0)
    await until(lambda: descriptors() <= before)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_its_end_is_the_end_of_its_sessions(world: World) -> None:
    await world.listen("console.sock", echo)
    await world.open()
    async with world.client() as session:
        ws = await world.stream(session)
        assert await ws.receive_bytes() == b"hello "
        await world.aclose()
        message = await ws.receive()
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("5m0s", 300), ("1h30m", 5400), ("1.5h", 5400), ("-3ms", -0.003), ("2us", 2e-6)],
)
def test_durations(text: str, seconds: float) -> None:
    assert durations.seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "5d", "1h-3m", "."])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        durations.seconds(text)
