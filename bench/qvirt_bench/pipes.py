"""Blocking clients that cost as little as they can, so that what is measured is between them and the other end.

All of them move bytes by the same loops; `Proxied` has TLS on top, and `Forwarded` a websocket's frames as well, as whoever
uses a forwarded port has. Its mask is zero: that is a mask like any other to the server, and costs nothing here.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
from typing import Final, Protocol
from urllib.parse import urlsplit

from qvirt_bench.errors import BenchError
from qvirt_crds.names import PLAIN_STREAM
from qvirt_launcher.cli.cluster.kubeconfig import Target

_CHUNK: Final = 1 << 20
#: Of one message, as clients send them that read sockets by so much (Go's io.Copy reads 32 KiB).
_MESSAGE: Final = 32 * 1024
_SECONDS: Final = 120.0
_BINARY: Final = 0x82
_CLOSE: Final = 8
_PING: Final = 9
_PONG: Final = 0x8A


class Pipe(Protocol):
    """An open connection to a port of the guest's."""

    def send(self, data: bytes) -> None:
        """All of it."""

    def take(self, count: int) -> bytes:
        """Exactly so many bytes; of more than a few the last ones only.

        :raise BenchError: the other side ended before.
        """

    def close(self) -> None:
        """Let go."""


class Direct:
    """A plain socket."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=_SECONDS)
        self._buffer = bytearray(_CHUNK)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def take(self, count: int) -> bytes:
        taken = 0
        while count:
            taken = self._socket.recv_into(self._buffer, min(count, _CHUNK))
            if not taken:
                raise BenchError(f"the connection ended {count} bytes too soon")
            count -= taken
        return bytes(self._buffer[: min(taken, 64)])

    def close(self) -> None:
        self._socket.close()


class Forwarded:
    """A websocket of the aggregated API.

    :param path: of a subresource of the API server.
    :raise BenchError: it is refused.
    """

    def __init__(self, target: Target, path: str) -> None:
        self._socket = _secured(target)
        self._buffer = bytearray(_CHUNK)
        #: Of the message that is being read.
        self._left = 0
        wanted = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Protocol": PLAIN_STREAM,
        }
        _ask(self._socket, target, path, wanted, b"101")

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), _MESSAGE):
            message = data[start : start + _MESSAGE]
            length = len(message)
            if length < 126:
                head = bytes((_BINARY, 0x80 | length))
            else:
                head = bytes((_BINARY, 0xFE)) + length.to_bytes(2, "big")
            self._socket.sendall(head + bytes(4) + message)

    def take(self, count: int) -> bytes:
        taken = 0
        while count:
            while not self._left:
                self._left = self._next()
            taken = self._socket.recv_into(self._buffer, min(count, self._left, _CHUNK))
            if not taken:
                raise BenchError(f"the stream ended {count} bytes too soon")
            count -= taken
            self._left -= taken
        return bytes(self._buffer[: min(taken, 64)])

    def close(self) -> None:
        self._socket.close()

    def _next(self) -> int:
        """Bytes of the next message with data."""
        first, length = self._exactly(2)
        if length == 126:
            length = int.from_bytes(self._exactly(2), "big")
        elif length == 127:
            length = int.from_bytes(self._exactly(8), "big")
        kind = first & 0x0F
        if kind in (0, 2):
            return length
        said = self._exactly(length)
        if kind == _PING:
            self._socket.sendall(bytes((_PONG, 0x80 | length)) + bytes(4) + said)
        elif kind == _CLOSE:
            raise BenchError(f"the stream was closed: {said[2:].decode(errors='replace')}")
        return 0

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            chunk = self._socket.recv(count - len(found))
            if not chunk:
                raise BenchError("the stream was cut off")
            found += chunk
        return found


class Proxied:
    """The body of an answer, by the API server's own proxy to a pod: what TLS and the API server cost without anything of ours.

    :param path: of the API server.
    :raise BenchError: it is refused.
    """

    def __init__(self, target: Target, path: str) -> None:
        self._socket = _secured(target)
        self._buffer = bytearray(_CHUNK)
        _ask(self._socket, target, path, {}, b"200")

    def send(self, data: bytes) -> None:
        """What is asked for stands in the path."""

    def take(self, count: int) -> bytes:
        taken = 0
        while count:
            taken = self._socket.recv_into(self._buffer, min(count, _CHUNK))
            if not taken:
                raise BenchError(f"the answer ended {count} bytes too soon")
            count -= taken
        return bytes(self._buffer[: min(taken, 64)])

    def close(self) -> None:
        self._socket.close()


def _secured(target: Target) -> ssl.SSLSocket:
    parts = urlsplit(target.server)
    host = parts.hostname or ""
    plain = socket.create_connection((host, parts.port or 443), timeout=_SECONDS)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return target.tls.wrap_socket(plain, server_hostname=host)


def _ask(
    connection: ssl.SSLSocket, target: Target, path: str, headers: dict[str, str], status: bytes
) -> None:
    """Send a request and read the answer's head.

    :raise BenchError: it has another status.
    """
    sent = {"Host": urlsplit(target.server).netloc, **headers, **target.headers}
    lines = [f"GET {path} HTTP/1.1", *(f"{key}: {value}" for key, value in sent.items())]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            break
        head += byte
    if head.split(b" ", 2)[1:2] != [status]:
        said = (head + connection.recv(4096)).decode(errors="replace")
        connection.close()
        raise BenchError(f"{path}: {said}")
