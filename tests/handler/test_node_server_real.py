"""virt-handler's node server with a real API server, a real launcher in a pod's namespaces and a real guest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tests.handler.authority import Authority, objects

from qvirt_crds.names import HANDLER_CLIENT_CN, HANDLER_SERVER_NAME, PLAIN_STREAM
from qvirt_kube.errors import NotFound

if TYPE_CHECKING:
    from tests.handler.conftest import Api, Handler, Pod

Eventually = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]

pytestmark = [pytest.mark.root, pytest.mark.qemu, pytest.mark.guest, pytest.mark.timeout(400)]

SECRETS = "/api/v1/namespaces/kubevirt/secrets"
CONFIG_MAPS = "/api/v1/namespaces/kubevirt/configmaps"
VIEWERS = 50
BOOT = 180.0
PATIENCE = 60.0


class Node:
    """virt-api's view of the node."""

    def __init__(self, api: Api, handler: Handler, folder: Path) -> None:
        self._api = api
        self._handler = handler
        self._folder = folder
        self._authority = Authority()

    async def publish(self) -> None:
        """As virt-api does."""
        secret, bundle = objects(self._authority.handler())
        kube = self._api.kube
        await kube.create(SECRETS, {"metadata": {"name": "kubevirt-virt-handler-certs"}, **secret})
        await kube.create(CONFIG_MAPS, {"metadata": {"name": "kubevirt-ca"}, **bundle})

    async def withdraw(self) -> None:
        """Leave the API server as it was."""
        for path in (f"{SECRETS}/kubevirt-virt-handler-certs", f"{CONFIG_MAPS}/kubevirt-ca"):
            with contextlib.suppress(NotFound):
                await self._api.kube.delete(path)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[aiohttp.ClientSession]:
        context = self._authority.client(self._folder, HANDLER_CLIENT_CN)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            yield session

    def url(self, verb: str) -> str:
        base = f"https://127.0.0.1:{self._handler.node_port}/v1/namespaces/default"
        return f"{base}/virtualmachineinstances/demo-bridge/{verb}"

    async def ask(self, method: str, verb: str) -> tuple[int, Any]:
        """HTTP status, and the message of a Status or the whole body."""
        async with (
            self.client() as session,
            session.request(method, self.url(verb), server_hostname=HANDLER_SERVER_NAME) as answer,
        ):
            if answer.content_type == "application/json":
                content = await answer.json()
                return answer.status, content.get("message", content)
            return answer.status, await answer.read()

    @contextlib.asynccontextmanager
    async def console(self) -> AsyncIterator[Terminal]:
        async with self.client() as session:
            yield Terminal(await self.stream(session, "console"))

    async def stream(
        self, session: aiohttp.ClientSession, kind: str
    ) -> aiohttp.ClientWebSocketResponse:
        return await session.ws_connect(
            self.url(kind), protocols=(PLAIN_STREAM,), server_hostname=HANDLER_SERVER_NAME
        )

    async def serves(self) -> bool:
        try:
            return (await self.ask("GET", "nothing"))[0] == 404
        except (aiohttp.ClientError, OSError):
            return False


class Terminal:
    """Somebody at the console."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.text = ""

    async def until(self, pattern: str, seconds: float = PATIENCE) -> str:
        """The match of what comes; it and all before is forgotten."""
        async with asyncio.timeout(seconds):
            while not (found := re.search(pattern, self.text)):
                message = await self.ws.receive()
                assert message.type == aiohttp.WSMsgType.BINARY, (message, self.text)
                self.text += message.data.decode(errors="replace")
        self.text = self.text[found.end() :]
        return found[0]

    async def type(self, line: str) -> None:
        await self.ws.send_bytes(line.encode() + b"\n")


@pytest.fixture
async def node(
    api: Api, handler: Handler, pod: Pod, tmp_path: Path, eventually: Eventually
) -> AsyncIterator[Node]:
    """A guest runs; the certificates came after the handler had started."""
    node = Node(api, handler, tmp_path)
    await api.create(pod.vmi())
    await handler.start()
    await api.until_status("demo-bridge", lambda status: status["phase"] == "Running")
    try:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await node.ask("GET", "guestosinfo")
        await node.publish()
        await eventually("the node server serves", node.serves)
        yield node
    finally:
        await node.withdraw()


async def login(terminal: Terminal) -> None:
    await terminal.until("login: ", BOOT)
    await terminal.type("root")
    await terminal.until(r":\S+# ")


async def test_console(node: Node) -> None:
    async with node.console() as first:
        await login(first)
        await first.type("echo $((6 * 7))")
        await first.until("\n42\r")
        async with node.console() as second:
            # What came before is shown again; whoever was there is thrown out.
            assert "login: " in await second.until(r"(?s).*login: .*\n42\r")
            while (message := await first.ws.receive()).type == aiohttp.WSMsgType.BINARY:
                pass
            assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            await second.type("echo $((7 * 8))")
            await second.until("\n56\r")


async def test_pause_stops_the_guests_clock(
    api: Api, handler: Handler, pod: Pod, node: Node, eventually: Eventually
) -> None:
    async with node.console() as terminal:
        await login(terminal)
        await terminal.type(
            "while :; do read up rest </proc/uptime; echo up=$up=; usleep 100000; done"
        )
        seen = await terminal.until("up=[0-9.]+=")
        assert await node.ask("PUT", "pause") == (200, b"")
        assert (await node.ask("PUT", "pause"))[0] == 409

        async def paused() -> Any:
            return await api.condition("demo-bridge", "Paused")

        found = await eventually("Paused", paused)
        assert (found["status"], found["reason"]) == ("True", "PausedByUser")
        # All that was on its way is there; then it is silent.
        with pytest.raises(TimeoutError):
            await terminal.until("nothing matches", 3)
        last = re.findall("up=([0-9.]+)=", seen + terminal.text)[-1]
        terminal.text = ""
        with pytest.raises(TimeoutError):
            await terminal.until("up=", 5)

        # Who has paused it is known after a restart as well.
        await handler.kill()
        await handler.start()
        await eventually("the node server serves", node.serves)
        assert (await node.ask("PUT", "pause"))[0] == 409
        assert (await paused())["reason"] == "PausedByUser"
    async with node.console() as terminal:
        await terminal.until(f"up={re.escape(last)}=")
        assert await node.ask("PUT", "unpause") == (200, b"")
        # The clock went on where it had stopped: less than the 8 seconds that it stood are missing.
        seen = await terminal.until("up=([0-9.]+)=\r\nup=([0-9.]+)=")
        after = float(re.findall("[0-9.]+[0-9]", seen)[-1])
        assert after - float(last) < 7

    async def unpaused() -> bool:
        return await paused() is None

    await eventually("not Paused", unpaused)

    async def told() -> bool:
        reasons = await api.reasons("demo-bridge")
        return reasons == ["Created", "Started", "Paused", "Unpaused"]

    await eventually("the Events", told)


async def test_reset_and_soft_reboot(node: Node) -> None:
    async with node.console() as terminal:
        await login(terminal)
        assert await node.ask("PUT", "reset") == (200, b"")
        await login(terminal)
        assert await node.ask("PUT", "softreboot") == (200, b"")
        await login(terminal)
    missing = (await node.ask("GET", "guestosinfo"))[1]
    assert "VMI does not have guest agent connected" in missing


async def test_screen(node: Node) -> None:
    async with node.console() as terminal:
        await terminal.until("login: ", BOOT)
    code, png = await node.ask("GET", "vnc/screenshot?moveCursor=true")
    assert code == 200
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    async with node.client() as session:
        rfb = await Rfb.shake_hands(await node.stream(session, "vnc"))
        assert (rfb.width, rfb.height) == (width, height)
        pixels = await rfb.picture()
        # Not a blank screen: the guest writes there, too.
        assert len(set(struct.unpack(f"{width * height}I", pixels))) > 1
        await rfb.ws.close()
        # The next one gets it as well.
        rfb = await Rfb.shake_hands(await node.stream(session, "vnc"))
        await rfb.ws.close()


class Rfb:
    """As much of a VNC viewer as asks for one picture (RFC 6143)."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self._data = b""
        self.width = self.height = 0

    async def _take(self, count: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            while len(self._data) < count:
                self._data += await self.ws.receive_bytes()
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    @classmethod
    async def shake_hands(cls, ws: aiohttp.ClientWebSocketResponse) -> Rfb:
        self = cls(ws)
        assert await self._take(12) == b"RFB 003.008\n"
        await ws.send_bytes(b"RFB 003.008\n")
        (count,) = await self._take(1)
        assert 1 in await self._take(count)
        await ws.send_bytes(b"\x01")
        assert await self._take(4) == bytes(4)
        await ws.send_bytes(b"\x01")
        self.width, self.height = struct.unpack(">HH", await self._take(4))
        assert (await self._take(16))[0] == 32
        (length,) = struct.unpack(">I", await self._take(4))
        await self._take(length)
        return self

    async def picture(self) -> bytes:
        """All of it, 4 bytes a pixel."""
        request = struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height)
        await self.ws.send_bytes(request)
        rows = bytearray(4 * self.width * self.height)
        kind, _, count = struct.unpack(">BBH", await self._take(4))
        assert kind == 0
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">HHHHi", await self._take(12))
            assert encoding == 0
            data = await self._take(4 * width * height)
            for row in range(height):
                start = 4 * ((y + row) * self.width + x)
                rows[start : start + 4 * width] = data[4 * width * row : 4 * width * (row + 1)]
        return bytes(rows)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_fifty_consoles_and_screens_leave_nothing(
    node: Node, handler: Handler, pod: Pod, eventually: Eventually
) -> None:
    assert handler.process is not None
    (qemu,) = (
        int(line)
        for line in (pod.cgroup / "cgroup.procs").read_text().split()
        if b"qemu-system" in Path(f"/proc/{line}/cmdline").read_bytes().split(b"\0")[0]
    )
    pids = (handler.process.pid, pod.launcher(), qemu)
    async with node.console() as terminal:
        await terminal.until("login: ", BOOT)
    await asyncio.sleep(1)
    before = [descriptors(pid) for pid in pids]
    for number in range(VIEWERS):
        async with node.client() as session:
            ws = await node.stream(session, ("console", "vnc")[number % 2])
            await ws.receive_bytes()
            if number % 3:
                await ws.close()

    async def level() -> bool:
        return all(descriptors(pid) <= at for pid, at in zip(pids, before, strict=True))

    await eventually(f"descriptors as before: {before}", level)
    async with node.console() as terminal:
        await login(terminal)


async def test_no_port_of_qemu_is_on_the_network(node: Node, pod: Pod) -> None:
    async with node.client() as session:
        ws = await node.stream(session, "vnc")
        await ws.receive_bytes()
        tables = [
            Path(f"/proc/{pod.launcher()}/net/{name}").read_text() for name in ("tcp", "tcp6")
        ]
        await ws.close()
    listening = [line for text in tables for line in text.splitlines() if " 0A " in line]
    assert listening == []
