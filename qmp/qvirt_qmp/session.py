"""One client of a `server.Server`: reads its requests, carries them out in order, writes replies and events.

Three coroutines and two bounded queues between them. A client that floods is read no faster than its commands
are carried out; one that doesn't read is cut off; what it sent before it hung up is still carried out, for `Limits.linger` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

import msgspec

from qvirt_qmp import dialect, sockets
from qvirt_qmp.errors import CommandFailed, QmpError
from qvirt_qmp.framer import Framer, Malformed
from qvirt_qmp.verbs import Grade

_log = logging.getLogger(__name__)

_CHUNK: Final = 64 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may cost. Bytes and seconds."""

    message: int = 1 << 20
    #: Requests read ahead of the one that is being carried out.
    requests: int = 8
    #: Replies and events that the client hasn't taken; beyond it is cut off.
    unsent: int = 8 << 20
    #: Descriptors that came and belong to no finished command yet.
    fds: int = 64
    #: A client that takes nothing for so long, while there is something to take, is cut off.
    stall: float = 30.0
    #: A client must negotiate within this.
    negotiation: float = 60.0
    #: How long commands go on after the client has hung up.
    linger: float = 10.0


class ClientInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end: by which door it came, and what the kernel says of its process."""

    grade: Grade
    uid: int
    gid: int
    pid: int
    listener: str
    #: Counts the server's clients from 1; for logs.
    number: int

    def __str__(self) -> str:
        return f"{self.listener}#{self.number}"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A command for the handler."""

    command: str
    arguments: dict[str, object]
    #: Descriptors that came with it. What is still in the list when the handler returns is closed: see `take_fds`.
    fds: list[int]
    client: ClientInfo

    def take_fds(self) -> list[int]:
        """The descriptors, from now on the caller's to close."""
        taken = list(self.fds)
        self.fds.clear()
        return taken


#: Carries a command out and returns what the client is told (anything msgspec can encode; None becomes ``{}``). A `QmpError`
#: becomes QMP's error; `CommandFailed` keeps its class. It is cancelled if the client is cut off or the server is closed: what must go on
#: regardless belongs in a task of its own.
Handler = Callable[[Call], Awaitable[object]]


class _Work(msgspec.Struct, frozen=True):
    text: bytes | Malformed
    fds: list[int]


class Session:
    """See the module. Lives as long as `run`."""

    def __init__(
        self,
        sock: socket.socket,
        client: ClientInfo,
        *,
        handler: Handler,
        version: Mapping[str, object],
        limits: Limits,
    ) -> None:
        self.client = client
        #: Whether it has negotiated, and so gets events.
        self.negotiated = False
        self._sock = sock
        self._handler = handler
        self._limits = limits
        self._framer = Framer(limit=limits.message)
        self._fds: list[int] = []
        self._work: asyncio.Queue[_Work | None] = asyncio.Queue(limits.requests)
        self._unsent: deque[bytes] = deque([dialect.greeting(version)])
        self._unsent_bytes = 0
        self._to_send = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._to_send.set()
        self._task: asyncio.Task[object] | None = None
        self._is_cut = False

    async def run(self) -> None:
        """Serve the client until it has hung up and has its answers, or is cut off. Closes the socket."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        patience = loop.call_later(self._limits.negotiation, self._expect_negotiation)
        reader = asyncio.create_task(self._read(), name=f"read {self.client}")
        writer = asyncio.create_task(self._write(), name=f"write {self.client}")
        try:
            await self._carry_out()
            await self._all_sent.wait()
        finally:
            patience.cancel()
            reader.cancel()
            writer.cancel()
            # Neither of them waits for anything once cancelled.
            await asyncio.wait({reader, writer})
            self._dispose()

    def send(self, line: bytes) -> None:
        """Queue a line for the client; a client that has let too much pile up is cut off."""
        self._unsent_bytes += len(line)
        if self._unsent_bytes > self._limits.unsent:
            self.cut("it does not read what it is sent")
            return
        self._unsent.append(line)
        self._all_sent.clear()
        self._to_send.set()

    def hang_up(self) -> None:
        """Read no more from the client; it still gets the answers to what it sent."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    def cut(self, why: str) -> None:
        """End the session at once, its command included."""
        # Once only: a second cancellation would interrupt the cleaning up.
        if self._task is not None and not self._is_cut:
            self._is_cut = True
            _log.info("client %s is cut off: %s", self.client, why)
            self._task.cancel()

    def _expect_negotiation(self) -> None:
        if not self.negotiated:
            self.cut("it did not negotiate")

    async def _read(self) -> None:
        # A door for reading only takes no descriptors: the kernel drops them before they are ours.
        most = self._limits.fds if self.client.grade != "read" else 0
        linger: asyncio.TimerHandle | None = None
        try:
            while True:
                data, fds, lost = await sockets.receive(self._sock, _CHUNK, most)
                if not data:
                    break
                if (lost and most) or len(self._fds) + len(fds) > most:
                    self.cut("it sends too many descriptors")
                await self._sort(data, fds)
        except OSError as error:
            _log.debug("client %s: %s", self.client, error)
        linger = asyncio.get_running_loop().call_later(
            self._limits.linger, self.cut, "it hung up and its commands do not end"
        )
        try:
            await self._work.put(None)
            # Only here to be cancelled, with the timer, by `run`.
            await asyncio.get_running_loop().create_future()
        finally:
            linger.cancel()

    async def _sort(self, data: bytes, came: list[int]) -> None:
        """Queue the requests that end in ``data``, and give the descriptors that ``came`` with it to the one they belong to.

        The kernel ends a read at a piece that had descriptors, but puts earlier pieces in front of it. So they belong to the last message that
        begins in ``data``; or, when it ends in a single blank (the byte that `QMPClient` and others send descriptors with), to the next one.
        """
        work = [_Work(frame, []) for frame in self._framer.feed(data)]
        if work:
            work[0].fds.extend(self._fds)
            self._fds.clear()
        unfinished = self._framer.inside and not (work and isinstance(work[-1].text, Malformed))
        if not work or unfinished or data.endswith((b"} ", b"\n ")):
            self._fds += came
        else:
            work[-1].fds.extend(came)
        try:
            while work:
                await self._work.put(work[0])
                del work[0]
        finally:
            for dropped in work:
                sockets.close_all(dropped.fds)

    async def _carry_out(self) -> None:
        while (work := await self._work.get()) is not None:
            try:
                self.send(await self._answer(work))
            finally:
                sockets.close_all(work.fds)
            await self._room()

    async def _answer(self, work: _Work) -> bytes:
        if isinstance(work.text, Malformed):
            return dialect.failure(dialect.GENERIC, f"message refused: {work.text.reason}", None)
        try:
            request = dialect.parse(work.text)
        except dialect.BadRequest as bad:
            return dialect.failure(dialect.GENERIC, bad.description, bad.id)
        if not self.negotiated or request.command == "qmp_capabilities":
            return self._negotiate(request)
        return await self._command(request, work.fds)

    def _negotiate(self, request: dialect.Request) -> bytes:
        def refuse(description: str, error_class: str = dialect.NOT_FOUND) -> bytes:
            return dialect.failure(error_class, description, request.id)

        if request.command != "qmp_capabilities":
            return refuse("negotiate first: execute 'qmp_capabilities'")
        if self.negotiated:
            return refuse("capabilities are negotiated already")
        wanted = request.arguments.get("enable", [])
        if request.arguments.keys() - {"enable"} or wanted != []:
            return refuse("no capabilities are offered, none can be enabled", dialect.GENERIC)
        self.negotiated = True
        return dialect.success(None, request.id)

    async def _command(self, request: dialect.Request, fds: list[int]) -> bytes:
        call = Call(
            command=request.command, arguments=request.arguments, fds=fds, client=self.client
        )
        try:
            return dialect.success(await self._handler(call), request.id)
        except CommandFailed as error:
            return dialect.failure(error.error_class, error.description, request.id)
        except QmpError as error:
            return dialect.failure(dialect.GENERIC, str(error), request.id)
        except Exception as error:  # noqa: BLE001  one client's command must not end the session
            # The client learns that it is our fault; the log has the rest.
            _log.exception("%s: command %s failed", self.client, request.command)
            told = f"internal error in {request.command} ({type(error).__name__}): see the log"
            return dialect.failure(dialect.GENERIC, told, request.id)

    async def _room(self) -> None:
        """Carry nothing more out for a client that is far behind with reading; `_write` cuts it off if it stays so."""
        if self._unsent_bytes > self._limits.unsent // 2:
            await self._all_sent.wait()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._to_send.wait()
                while self._unsent:
                    line = memoryview(self._unsent.popleft())
                    for start in range(0, len(line), _CHUNK):
                        async with asyncio.timeout(self._limits.stall):
                            await loop.sock_sendall(self._sock, line[start : start + _CHUNK])
                    self._unsent_bytes -= len(line)
                self._to_send.clear()
                self._all_sent.set()
        except TimeoutError:
            self.cut("it stopped reading")
        except OSError as error:
            _log.debug("client %s: %s", self.client, error)
            await self._discard()

    async def _discard(self) -> Literal["never"]:
        """The client reads no more, but what it asked for is still carried out."""
        while True:
            self._unsent.clear()
            self._unsent_bytes = 0
            self._to_send.clear()
            self._all_sent.set()
            await self._to_send.wait()

    def _dispose(self) -> None:
        sockets.close_all(self._fds)
        while not self._work.empty():
            left = self._work.get_nowait()
            if left is not None:
                sockets.close_all(left.fds)
        self._sock.close()
