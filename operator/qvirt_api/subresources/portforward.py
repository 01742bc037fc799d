"""Port-forwarding: a websocket to a port of the guest, dialled from here.

As in KubeVirt the guest is dialled before the client's handshake is answered, the client is pinged every second, and is
given up when it has not been heard for a minute. Each datagram is one message.

What ends: the guest's end of a TCP connection becomes a close frame, after all that the guest has sent. A client's close
frame becomes the end of the guest's input; what the guest still sends is delivered as long as the client stays.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Literal, Protocol, cast

import aiohttp
from aiohttp import web

from qvirt_api.subresources.errors import DialFailed, bad_request
from qvirt_api.subresources.streams import FLUSH_SECONDS, GONE, End, keep_alive
from qvirt_kube import buffers

_DIAL_SECONDS: Final = 10.0
_PING_SECONDS: Final = 1.0
#: Without a sign of life of the client, or (when it has closed its side) of the guest.
_SILENCE_SECONDS: Final = 60.0
#: Read at once, and (twice) held for a client that is slow.
_CHUNK: Final = buffers.SIZE
#: Datagrams that a slow client has not taken; further ones are dropped, as networks do.
_DATAGRAMS: Final = 256

_Protocol = Literal["tcp", "udp"]


class Port(Protocol):
    """A port of the guest."""

    async def receive(self) -> bytes | None:
        """The next bytes, or datagram; None: the guest sends no more.

        :raise OSError: the connection is lost.
        """

    async def send(self, data: bytes) -> None:
        """:raise OSError: the connection is lost."""

    def end(self) -> None:
        """The client sends no more."""

    def abort(self) -> None:
        """Let go of everything."""


def target(port: str, protocol: str) -> tuple[int, _Protocol]:
    """What the path asks for.

    :raise StatusError: 400.
    """
    number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else 0
    if not 0 < number < 65536:
        raise bad_request(f"port must be between 1 and 65535, not {port!r}")
    match protocol.lower():
        case "" | "tcp":
            return number, "tcp"
        case "udp":
            return number, "udp"
        case _:
            raise bad_request(f"protocol must be tcp or udp, not {protocol!r}")


async def dial(host: str, port: int, protocol: _Protocol) -> Port:
    """:raise DialFailed: refused, or no answer in time."""
    try:
        async with asyncio.timeout(_DIAL_SECONDS):
            if protocol == "tcp":
                reader, writer = await asyncio.open_connection(host, port, limit=_CHUNK)
                keep_alive(writer.transport)
                return TcpPort(reader, writer)
            loop = asyncio.get_running_loop()
            _, datagrams = await loop.create_datagram_endpoint(UdpPort, remote_addr=(host, port))
            return datagrams
    except TimeoutError as error:
        raise DialFailed(f"dial {protocol} {host}:{port}: i/o timeout") from error
    except OSError as error:
        raise DialFailed(f"dial {protocol} {host}:{port}: {error.strerror or error}") from error


class TcpPort:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> bytes | None:
        return await self._reader.read(_CHUNK) or None

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        # A connection that is lost has ended anyway.
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def abort(self) -> None:
        self._writer.transport.abort()


class UdpPort(asyncio.DatagramProtocol):
    """A connected socket. Errors that the network reports (nobody listens) lose datagrams, nothing else."""

    def __init__(self) -> None:
        self._received: asyncio.Queue[bytes] = asyncio.Queue(_DATAGRAMS)
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own is not of the class that it documents.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr
        with contextlib.suppress(asyncio.QueueFull):
            self._received.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        """Not an end: the guest's service may come up later."""

    async def receive(self) -> bytes | None:
        return await self._received.get()

    async def send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.sendto(data)

    def end(self) -> None:
        """Datagrams know no end; see `Tunnel`."""

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Tunnel:
    """One session. The websocket is `streams.websocket(raw=True)`, upgraded already."""

    def __init__(
        self, request: web.Request, near: web.WebSocketResponse, port: Port, protocol: _Protocol
    ) -> None:
        self._request = request
        self._near = near
        self._port = port
        self._half_closes = protocol == "tcp"
        self._client_closed = False
        #: Since when the client is waited for; None: it is the guest's turn.
        self._waiting: float | None = None
        self._heard = 0.0

    async def run(self) -> None:
        """Until both sides have ended, or one is lost."""
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._up(), name="client to guest")
                down = group.create_task(self._down(), name="guest to client")
                watch = group.create_task(self._watch(), name="watching the client")
                tasks = {up, down, watch}
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if self._client_closed and self._half_closes:
                    await asyncio.wait({down, watch}, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
            if self._client_closed or (not down.cancelled() and down.result() == "closed"):
                await self._close()
        finally:
            self._port.abort()

    async def _up(self) -> End:
        loop = asyncio.get_running_loop()
        while True:
            # Its end is looked for in `_watch`: a timer for each message would cost more than the message.
            self._waiting = loop.time()
            message = await self._near.receive()
            self._waiting = None
            match message.type:
                case aiohttp.WSMsgType.BINARY:
                    try:
                        await self._port.send(message.data)
                    except OSError:
                        return "deaf"
                case aiohttp.WSMsgType.PING:
                    with contextlib.suppress(*GONE):
                        await self._near.pong(message.data)
                case aiohttp.WSMsgType.PONG | aiohttp.WSMsgType.TEXT:
                    continue
                case aiohttp.WSMsgType.CLOSE:
                    self._heard = loop.time()
                    self._client_closed = True
                    self._port.end()
                    return "closed"
                case _:
                    return "lost"

    async def _down(self) -> End:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await self._port.receive()
            except OSError:
                return "lost"
            if data is None:
                return "closed"
            self._heard = loop.time()
            try:
                await self._near.send_bytes(data)
            except GONE:
                return "deaf"

    async def _watch(self) -> End:
        """Pings; after the client's close frame, which nothing may follow but data, looks whether it is still there."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_PING_SECONDS)
            transport = self._request.transport
            if transport is None or transport.is_closing():
                return "lost"
            since = self._heard if self._client_closed else self._waiting
            if since is not None and loop.time() - since > _SILENCE_SECONDS:
                return "lost"
            if not self._client_closed:
                # Behind data that the client doesn't take it may wait; the clock above doesn't.
                with contextlib.suppress(TimeoutError, *GONE):
                    async with asyncio.timeout(_PING_SECONDS):
                        await self._near.ping(b"keep alive")

    async def _close(self) -> None:
        with contextlib.suppress(TimeoutError, *GONE):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._near.close()
