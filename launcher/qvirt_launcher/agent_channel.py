"""One command at a time to the agent of the guest, over the virtio-serial port that QEMU has as a unix socket.

Replies carry nothing that says what they answer, so every command is led in by ``guest-sync-delimited``: what an earlier command left
behind, on our side or in the guest, is never taken for an answer. Nothing is read while nothing is asked: a guest that floods its port
fills QEMU's buffers and not our time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from qvirt_launcher import agent_lines
from qvirt_launcher.agent_lines import Failure, Lines, Result, Rubbish, TooLong
from qvirt_launcher.errors import AgentAway, AgentCommandMissing, AgentRefused, AgentSilent
from qvirt_qmp import sockets

_CHUNK: Final = 64 * 1024
_CONNECT_SECONDS: Final = 5.0
#: Of one answer with what stood before it: whoever sends more is no agent.
_MOST_BYTES: Final = 4 * agent_lines.LONGEST
#: How long an agent may take to refuse a command that it answers in no other way.
_REFUSAL_SECONDS: Final = 3.0
#: Seconds, unless `execute` is told otherwise: an emulated guest under load is slow.
DEADLINE: Final = 20.0

_NOT_FOUND: Final = "CommandNotFound"


class Channel:
    """See the module. `opened` and `closed` are told by QEMU's events; commands fail while it is closed."""

    def __init__(self) -> None:
        self.is_open = False
        #: Counts how often the port was opened.
        self.session = 0
        self._sock: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._lines = Lines()
        first = int.from_bytes(os.urandom(4), "big")
        self._numbers = itertools.count(first)
        self._ready: deque[bytes | TooLong] = deque()
        self._waiting: asyncio.Future[bool] | None = None

    async def connect(self, path: str) -> None:
        """Connect to QEMU's socket; the agent may be there then or later.

        :raise OSError: nobody listens there. TimeoutError is one.
        """
        async with asyncio.timeout(_CONNECT_SECONDS):
            self._sock = await sockets.connect_path(path)

    def opened(self) -> None:
        """Somebody in the guest opened the port; it may be somebody else than before."""
        self._interrupt()
        self.is_open = self._sock is not None
        self.session += 1

    def closed(self) -> None:
        """Nobody has the port open: a command that waits for its answer fails now."""
        self.is_open = False
        self._interrupt()

    def close(self) -> None:
        """For good. Closing twice is fine."""
        self.closed()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    async def execute(
        self,
        command: str,
        arguments: dict[str, object] | None = None,
        *,
        deadline: float = DEADLINE,
    ) -> object:
        """What the command returned.

        :param deadline: seconds, those of waiting for commands of others included.
        :raise AgentAway: nobody has the port open, or it was closed before the answer.
        :raise AgentSilent: no answer within the deadline.
        :raise AgentRefused: the agent's error.
        """
        async with self._turn(command, deadline):
            await self._send(command, agent_lines.request(command, arguments))
            return await self._answer(command)

    async def tell(
        self, command: str, arguments: dict[str, object], *, deadline: float = DEADLINE
    ) -> None:
        """A command that is answered only when it fails (``guest-shutdown``). The guest may be gone when this returns.

        :raise AgentError: as `execute` does.
        """
        async with self._turn(command, deadline):
            await self._send(command, agent_lines.request(command, arguments))
            # It was sent, so an agent that hangs up has taken it.
            with contextlib.suppress(TimeoutError, AgentAway):
                async with asyncio.timeout(_REFUSAL_SECONDS):
                    await self._answer(command)

    @contextlib.asynccontextmanager
    async def _turn(self, command: str, deadline: float) -> AsyncIterator[None]:
        """The channel is ours and the agent listens; an answer that comes in here is to what is asked in here."""
        self._demand(command)
        try:
            async with asyncio.timeout(deadline), self._lock:
                self._demand(command)
                await self._synchronize(command)
                yield
        except TimeoutError:
            raise AgentSilent(
                f"{command}: the guest's agent did not answer within {deadline:g} s"
            ) from None
        except OSError as error:
            raise AgentAway(f"{command}: QEMU has closed the agent's port ({error})") from error

    def _demand(self, command: str) -> socket.socket:
        if not self.is_open or self._sock is None:
            raise AgentAway(
                f"{command}: no guest agent is connected; install and start qemu-guest-agent in the guest"
            )
        return self._sock

    async def _synchronize(self, command: str) -> None:
        number = next(self._numbers)
        await self._send(command, agent_lines.mark(number))
        await self._until(command, lambda line: agent_lines.is_mark(line, number), patient=True)

    async def _answer(self, command: str) -> object:
        line = await self._until(command, _is_reply)
        match agent_lines.read(line):
            case Result(value=value):
                return value
            case Failure(error_class=kind, description=text):
                refused = AgentCommandMissing if kind == _NOT_FOUND else AgentRefused
                raise refused(f"{command}: {text or kind or 'the agent gives no reason'}")
            case Rubbish():
                raise AssertionError("_is_reply lets none of it through")

    async def _until(
        self, command: str, wanted: Callable[[bytes], bool], *, patient: bool = False
    ) -> bytes:
        """The next line of that kind; all others are passed over, those too long to be kept only when `patient`."""
        left = _MOST_BYTES
        while left > 0:
            while self._ready:
                line = self._ready.popleft()
                if isinstance(line, TooLong):
                    if patient:
                        continue
                    raise AgentSilent(f"{command}: the answer is longer than 4 MiB")
                if wanted(line):
                    return line
            data = await self._receive(command)
            left -= len(data)
            self._ready.extend(self._lines.feed(data))
        raise AgentSilent(f"{command}: what comes from the agent's port is no answer")

    async def _send(self, command: str, data: bytes) -> None:
        sock = self._demand(command)
        left = memoryview(data)
        loop = asyncio.get_running_loop()
        while left:
            try:
                left = left[sock.send(left) :]
            except BlockingIOError:
                await self._wait(command, loop.add_writer)

    async def _receive(self, command: str) -> bytes:
        sock = self._demand(command)
        while True:
            with contextlib.suppress(BlockingIOError):
                if data := sock.recv(_CHUNK):
                    return data
                raise AgentAway(f"{command}: QEMU has closed the agent's port")
            await self._wait(command, asyncio.get_running_loop().add_reader)

    async def _wait(
        self, command: str, watch: Callable[[socket.socket, Callable[[], None]], None]
    ) -> None:
        """Until the socket can be used; unlike asyncio's own, this wait is ended by `closed`, too.

        :raise AgentAway: it was.
        """
        sock = self._demand(command)
        waiting = asyncio.get_running_loop().create_future()
        self._waiting = waiting
        watch(sock, lambda: None if waiting.done() else waiting.set_result(True))
        try:
            stays = await waiting
        finally:
            self._waiting = None
            self._unwatch()
        if not stays:
            raise AgentAway(f"{command}: the guest's agent went away before it answered")

    def _interrupt(self) -> None:
        self._unwatch()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(False)

    def _unwatch(self) -> None:
        if self._sock is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._sock)
            loop.remove_writer(self._sock)


def _is_reply(line: bytes) -> bool:
    return not isinstance(agent_lines.read(line), Rubbish)
