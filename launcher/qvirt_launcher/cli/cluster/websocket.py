"""A websocket client for byte streams (RFC 6455): the handshake, binary messages, pings, and ends of both directions."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from qvirt_crds.names import PLAIN_STREAM
from qvirt_launcher.cli.cluster.api import message_of
from qvirt_launcher.cli.cluster.errors import ClusterError, ClusterRefused

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONNECT_SECONDS: Final = 30.0
_LIMIT: Final = 1 << 20
_BINARY: Final = 2
_CLOSE: Final = 8
_PONG: Final = 10
#: Of one message; the longest that a server sends is far shorter.
_LONGEST: Final = 1 << 26


class WebSocket:
    """An open one; see `connect`. A `pipes.Pipe`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._said_end = False
        #: How the other side ended: a close frame's code; 1006: without one.
        self.code = 1006

    async def read(self) -> bytes:
        """The next message's bytes; empty: the other side has ended (`code`)."""
        while True:
            try:
                kind, data = await self._frame()
            except (asyncio.IncompleteReadError, OSError):
                return b""
            match kind:
                case 0x0 | 0x2 if data:  # parts of a message are as good as whole ones
                    return data
                case 0x8:
                    self.code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
                    self.end()
                    return b""
                case 0x9:
                    self._send(_PONG, data)

    def send(self, data: bytes) -> None:
        """In one binary message; `drain` waits until it may be more."""
        if data:
            self._send(_BINARY, data)

    async def drain(self) -> None:
        """:raise OSError: the connection is lost."""
        await self._writer.drain()

    def end(self) -> None:
        """Say that nothing more comes. What the other side still sends can be read."""
        if not self._said_end:
            self._send(_CLOSE, (1000).to_bytes(2, "big"))
            self._said_end = True

    def abort(self) -> None:
        """Let go."""
        self._writer.transport.abort()

    async def _frame(self) -> tuple[int, bytes]:
        first, second = await self._reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(await self._reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self._reader.readexactly(8), "big")
        if second & 0x80 or length > _LONGEST:
            raise OSError("the server breaks the protocol")
        return first & 0x0F, await self._reader.readexactly(length)

    def _send(self, kind: int, data: bytes) -> None:
        if self._said_end:
            return
        length = len(data)
        if length < 126:
            head = bytes((0x80 | kind, 0x80 | length))
        elif length < 1 << 16:
            head = bytes((0x80 | kind, 0xFE)) + length.to_bytes(2, "big")
        else:
            head = bytes((0x80 | kind, 0xFF)) + length.to_bytes(8, "big")
        mask = os.urandom(4)
        self._writer.write(head + mask + masked(data, mask))


def masked(data: bytes, mask: bytes) -> bytes:
    """Every byte combined with one of the mask's four in turn; twice gives the data again."""
    length = len(data)
    pad = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(length, "big")


async def connect(url: str, tls: ssl.SSLContext, headers: Mapping[str, str]) -> WebSocket:
    """Open a stream.

    :raise ClusterRefused: the server answers with something else than a websocket.
    :raise ClusterError: it can't be reached.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=tls, limit=_LIMIT, server_hostname=host
            )
    except (OSError, TimeoutError) as error:
        raise ClusterError(f"{host}:{port}: {error or 'no answer in time'}") from error
    try:
        async with asyncio.timeout(_CONNECT_SECONDS * 2):
            await _shake_hands(reader, writer, url, headers)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        writer.transport.abort()
        raise ClusterError(f"{host}:{port}: {error or 'no answer in time'}") from error
    except BaseException:
        writer.transport.abort()
        raise
    return WebSocket(reader, writer)


async def _shake_hands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str, headers: Mapping[str, str]
) -> None:
    parts = urlsplit(url)
    key = base64.b64encode(os.urandom(16)).decode()
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    sent = {
        "Host": parts.netloc,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": PLAIN_STREAM,
        **headers,
    }
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ", 2)[1])
    got = {
        name.strip().lower(): value.strip()
        for name, _, value in (h.partition(":") for h in head[1:])
    }
    if status != 101:
        length = int(got.get("content-length", "0") or 0)
        body = await reader.readexactly(min(length, _LIMIT))
        writer.transport.abort()
        raise ClusterRefused(status, message_of(body) or head[0])
    accept = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
    if got.get("sec-websocket-accept") != accept:
        raise ValueError("the server's handshake is wrong")
