"""The page of a cluster's screen on a port of this machine, for the browser that was shown the way.

Whoever gets through has the kubeconfig's rights to this one page and its stream. So it is below a word that can't be
guessed, which pages of other sites don't know and can't learn, under no name but this machine's own, and leads nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import webbrowser
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from qvirt_launcher.cli.cluster import api
from qvirt_launcher.cli.where import Remote
from qvirt_launcher.errors import HostError

_CHUNK: Final = 65536
_LONGEST_HEAD: Final = 1 << 16
#: Seconds for a head, ours or theirs.
_HEAD_SECONDS: Final = 60.0
#: Of the browser's headers, what the server needs. Credentials are ours.
_PASSED: Final = ("accept", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol")


class Request(Struct, frozen=True, kw_only=True):
    """The head of one; names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def is_stream(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"


class Forward(Struct, frozen=True, kw_only=True):
    """To the API server, at this path."""

    path: str


class Answer(Struct, frozen=True, kw_only=True):
    """By ourselves."""

    status: str
    location: str = ""


_GONE: Final = (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError)
#: What a path could lead elsewhere by; names of the page's files have none of it.
_ASTRAY: Final = ("..", "%", "?", "#", "\\")
_FORBIDDEN: Final = Answer(status="403 Forbidden")
_NOT_FOUND: Final = Answer(status="404 Not Found")


class Door:
    """Who is let in, and where to.

    :param stream: path of the screen's stream on the API server; the page lies below it.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._word = secrets.token_urlsafe(32)
        self._once = secrets.token_urlsafe(32)

    @property
    def page(self) -> str:
        """Path of the page, for eyes that may see it."""
        return f"/{self._word}{self._stream}/page"

    @property
    def first(self) -> str:
        """The same for a command line, which others on this machine see: it leads to the page once."""
        return f"/{self._once}"

    def decide(self, request: Request, port: int) -> Forward | Answer:
        """:param port: ours."""
        host = request.headers.get("host", "")
        if host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return _FORBIDDEN
        if request.headers.get("origin", f"http://{host}") != f"http://{host}":
            return _FORBIDDEN
        if request.method != "GET":
            return Answer(status="405 Method Not Allowed")
        word, slash, rest = request.target.removeprefix("/").partition("/")
        if self._once and hmac.compare_digest(word.encode(), self._once.encode()):
            self._once = ""
            return Answer(status="303 See Other", location=self.page)
        if not hmac.compare_digest(word.encode(), self._word.encode()):
            return _NOT_FOUND
        return self._within(slash + rest)

    def _within(self, path: str) -> Forward | Answer:
        page = f"{self._stream}/page"
        below = path.startswith(f"{page}/") and not any(sign in path for sign in _ASTRAY)
        if below or path in (self._stream, page):
            return Forward(path=path)
        return _NOT_FOUND


async def serve(remote: Remote, port: int, *, open_browser: bool) -> None:
    """Until cancelled.

    :param port: 0: any free one.
    :raise ClusterError: there is no page, or it is not for us.
    :raise HostError: the port is taken.
    """
    stream = api.path(remote.namespace, "virtualmachineinstances", remote.name, "vnc")
    await asyncio.to_thread(remote.read_page)
    door = Door(stream)
    number = port

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(*_GONE):
            await _serve_one(remote, door, number, reader, writer)

    try:
        server = await asyncio.start_server(one, "127.0.0.1", port, limit=_LONGEST_HEAD)
    except OSError as error:
        raise HostError(f"vnc: port {port}: {error.strerror}; choose another --port") from error
    async with server:
        number = server.sockets[0].getsockname()[1]
        base = f"http://127.0.0.1:{number}"
        print(f"The screen is at {base}{door.page}, Ctrl-C ends", flush=True)
        if open_browser:
            await asyncio.to_thread(webbrowser.open, f"{base}{door.first}")
        await server.serve_forever()


async def _serve_one(
    remote: Remote,
    door: Door,
    port: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    request = await _read(reader)
    found = door.decide(request, port)
    if isinstance(found, Forward):
        await _forward(remote, request, found, reader, writer)
        return
    place = f"Location: {found.location}\r\n" if found.location else ""
    head = f"HTTP/1.1 {found.status}\r\n{place}Content-Length: 0\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Request:
    """:raise EOFError: it is no request."""
    async with asyncio.timeout(_HEAD_SECONDS):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.LimitOverrunError as error:
            raise EOFError from error
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        raise EOFError
    headers = {
        name.strip().lower(): value.strip()
        for name, colon, value in (line.partition(":") for line in lines)
        if colon
    }
    return Request(method=words[0], target=words[1], headers=headers)


async def _forward(
    remote: Remote,
    request: Request,
    found: Forward,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """One request for each connection: what else a browser sends reaches nobody, except into a stream that is open."""
    server = urlsplit(remote.target.server)
    async with asyncio.timeout(_HEAD_SECONDS):
        far_reader, far_writer = await asyncio.open_connection(
            server.hostname, server.port or 443, ssl=remote.target.tls, limit=_LONGEST_HEAD
        )
    with contextlib.closing(far_writer):
        path = server.path.rstrip("/") + found.path
        far_writer.write(_head(request, path, server.netloc, remote.target.headers))
        async with asyncio.timeout(_HEAD_SECONDS):
            answer = await far_reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if not request.is_stream:
            await _pump(far_reader, writer)
        elif answer.split(b" ", 2)[1] == b"101":
            await _both_ways((reader, far_writer), (far_reader, writer))


def _head(request: Request, path: str, host: str, credentials: dict[str, str]) -> bytes:
    headers = {"Host": host, "Connection": "close"}
    headers |= {name: request.headers[name] for name in _PASSED if name in request.headers}
    if request.is_stream:
        headers |= {"Connection": "Upgrade", "Upgrade": "websocket"}
    headers |= credentials
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _both_ways(*ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Until one side ends; a websocket says goodbye before that."""
    tasks = [asyncio.create_task(_pump(*way)) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        sink.write(data)
        await sink.drain()
