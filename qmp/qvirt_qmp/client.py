"""One monitor, with our manners: `qemu.qmp`'s client behind a smaller face.

What `QMPClient` gives: greeting, negotiation, ids, routing of replies. What this module adds: a deadline for every command, typed events in
bounded streams (the library's own listener keeps every event twice, for ever, and is never fed here), an end that can be
awaited and never raises, a hang-up that a silent peer can't delay, descriptors that travel with the command they belong to,
and quiet.

An event that the peer sent before a reply is in every stream, and has been given to every listener, before `execute` returns
that reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, cast

from qvirt_qmp import deadlines, sockets
from qvirt_qmp.backlog import EventStream
from qvirt_qmp.errors import (
    CommandFailed,
    CommandTimeout,
    ConnectFailed,
    Disconnected,
    Interrupted,
    QmpError,
)
from qvirt_qmp.events import decode_event
from qvirt_qmp.library import (
    BadReplyError,
    ConnectError,
    ExecInterruptedError,
    ExecuteError,
    Message,
    QMPClient,
    Runstate,
    StateError,
    flush,
)
from qvirt_qmp.sendable import objection

_log = logging.getLogger(__name__)

#: The longest line that a peer may send, in bytes.
_LONGEST_LINE: Final = 10 * 1024 * 1024
#: Commands that wait to be written. More mean that the peer has stopped reading.
_MOST_UNSENT: Final = 256
#: Seconds to wait before another try to send descriptors into a full socket.
_FULL_PAUSE: Final = 0.01
#: Key under which descriptors ride in a message until it is written.
_FDS: Final = "qvirt fds"

#: Called with each raw event, in order, before any reply that came after it.
EventListener = Callable[[Mapping[str, object]], None]


class Recorder(Protocol):
    """What keeps a log of the traffic (`recorder.FlightRecorder`). ``origin`` says on whose behalf."""

    def command(self, origin: str, name: str, arguments: object) -> None: ...
    def reply(self, origin: str, name: str, value: object) -> None: ...
    def error(self, origin: str, name: str, message: str) -> None: ...
    def event(self, name: str, data: object) -> None: ...


class _Client(QMPClient):
    """`QMPClient` without its log, its listener and its habit of dying of another's mistake."""

    def __init__(self, sock: socket.socket, on_event: EventListener) -> None:
        super().__init__(None, _LONGEST_LINE)
        # The library logs what it also raises, and formats every message for its debug log.
        self.logger = logging.Logger("qvirt_qmp.silent", logging.CRITICAL + 1)
        self._sock = sock
        self._on_event = on_event

    @property
    def unsent(self) -> int:
        return self._outgoing.qsize()

    def _cb_inbound(self, msg: Message) -> Message:
        return msg

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    async def _on_message(self, msg: Message) -> None:
        if "event" in msg:
            self._on_event(dict(msg))
        elif isinstance(msg.get("id"), str):
            await super()._on_message(msg)
        else:
            # All our commands have string ids. The library would end the connection here.
            _log.warning("a reply without a usable id was dropped: %.200s", dict(msg))

    async def _send(self, msg: Message) -> None:
        assert self._writer is not None
        if _FDS in msg:
            await self._send_with_fds(msg)
        else:
            self._do_send(msg)
        await self._writer.drain()

    async def _send_with_fds(self, msg: Message) -> None:
        """Descriptors go with the first bytes of their command, so that no other command can be given them."""
        assert self._writer is not None
        fds = cast("list[int]", msg.pop(_FDS))
        data = bytes(msg)
        await flush(self._writer)
        # `execute` empties the list when it stops waiting: the numbers may mean other files by now.
        while fds:
            try:
                sent = sockets.send_with_fds(self._sock, data, fds)
            except BlockingIOError:
                await asyncio.sleep(_FULL_PAUSE)
            else:
                self._writer.write(data[sent:])
                return


class Monitor:
    """A session with a QMP peer: QEMU, or a server that speaks its dialect (`server`). Made by `connect`."""

    def __init__(self, name: str, sock: socket.socket, recorder: Recorder | None) -> None:
        self.name = name
        #: Sees every command, reply and event from now on; may be set at any time.
        self.recorder = recorder
        self._sock = sock
        self._client = _Client(sock, self._dispatch)
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._listeners: list[EventListener] = []
        self._streams: list[EventStream] = []
        #: Holds what arrives before the first call of `events`.
        self._early: EventStream | None = EventStream()
        self._streams.append(self._early)
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        where: socket.socket | str,
        *,
        name: str,
        deadline: float = deadlines.CONNECT,
        recorder: Recorder | None = None,
    ) -> Monitor:
        """Connect, read the greeting and negotiate.

        :param where: a connected socket (owned by the monitor from now on, closed also on failure) or the path of a unix socket.
            Close your copy of the other end of a socketpair first: only then is a peer that dies noticed.
        :param name: what errors call the peer.
        :raises ConnectFailed: nobody there, no greeting within ``deadline`` seconds, or not QMP.
        """
        try:
            async with asyncio.timeout(deadline):
                sock = where if isinstance(where, socket.socket) else await _dial(where, name)
                return await cls._establish(name, sock, recorder)
        except TimeoutError:
            raise ConnectFailed(name, f"no greeting within {deadline:g} s") from None

    @classmethod
    async def _establish(cls, name: str, sock: socket.socket, recorder: Recorder | None) -> Monitor:
        try:
            sock.setblocking(False)
            monitor = cls(name, sock, recorder)
            await monitor._client.connect(sock)
        except (ConnectError, OSError) as error:
            sock.close()
            raise ConnectFailed(name, _cause(error)) from error
        except BaseException:
            sock.close()
            raise
        monitor._watch = asyncio.create_task(monitor._watch_end(), name=f"monitor {name}")
        return monitor

    @property
    def greeting(self) -> Mapping[str, object]:
        """What the peer said of itself: the object under ``QMP``, with ``version`` and ``capabilities``."""
        greeting = self._client.greeting
        said = greeting._asdict() if greeting is not None else {}
        return cast("Mapping[str, object]", said.get("QMP", {}))

    @property
    def version(self) -> str:
        """The peer's, e.g. ``7.2.22``; empty when its greeting has none."""
        said = self.greeting.get("version")
        parts = said.get("qemu") if isinstance(said, Mapping) else None
        if not isinstance(parts, Mapping):
            return ""
        return ".".join(str(parts.get(name, "?")) for name in ("major", "minor", "micro"))

    @property
    def closed(self) -> asyncio.Future[str]:
        """Done when the session has ended, whoever ended it; the result says why. Never raises.

        Each access gives a future of its own, so that whoever is cancelled while waiting spoils it for nobody else.
        """
        return asyncio.shield(self._ended)

    def events(self) -> EventStream:
        """A stream of all events from now on; the first call's stream starts with those since `connect`. See `EventStream`.

        Close a stream that is not read to its end.
        """
        stream, self._early = self._early, None
        if stream is None:
            stream = EventStream()
            self._streams = [kept for kept in self._streams if not kept.ended]
            self._streams.append(stream)
        if self._ended.done():
            stream.close()
        return stream

    def listen(self, listener: EventListener) -> Callable[[], None]:
        """Have ``listener`` called with each raw event message; returns what stops that. It must not block."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        deadline: float | None = None,
        fds: Sequence[int] = (),
        origin: str = "launcher",
    ) -> object:
        """Run ``command`` and return what the peer returned.

        :param deadline: seconds; None: `deadlines.deadline_of` the command.
        :param fds: descriptors that travel with the command (unix sockets only). They stay the caller's and must stay open until this returns.
        :param origin: on whose behalf, for the recorder.
        :raises CommandFailed: the peer refused, or ``arguments`` can't be said in QEMU's JSON.
        :raises CommandTimeout: no answer in time; the outcome is open.
        :raises Interrupted: the session ended first; the outcome is open.
        :raises Disconnected: the session had ended; nothing was sent.
        """
        recorder = self.recorder
        if recorder is not None:
            recorder.command(origin, command, arguments)
        try:
            value = await self._execute(command, arguments, deadline, fds)
        except QmpError as error:
            if recorder is not None:
                recorder.error(origin, command, str(error))
            raise
        if recorder is not None:
            recorder.reply(origin, command, value)
        return value

    async def aclose(self, *, deadline: float = 2.0) -> None:
        """Hang up. Takes at most ``deadline`` seconds, whatever the peer does; never raises. Commands under way are `Interrupted`."""
        with contextlib.suppress(OSError):
            # Not a polite close: that would wait until a peer that stands still has read everything.
            self._sock.shutdown(socket.SHUT_RDWR)
        if self._watch is not None:
            _, late = await asyncio.wait({self._watch}, timeout=deadline)
            for task in late:
                task.cancel()
                await asyncio.wait({task}, timeout=deadline)
        self._end("closed")

    async def _execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None,
        deadline: float | None,
        fds: Sequence[int],
    ) -> object:
        seconds = deadlines.deadline_of(command) if deadline is None else deadline
        if why := objection(command) or objection(arguments):
            raise CommandFailed(command, "GenericError", f"the arguments can't be sent: {why}")
        if self._ended.done():
            raise Disconnected(self.name, self._ended.result())
        if self._client.unsent >= _MOST_UNSENT:
            raise Disconnected(self.name, "it reads no commands any more")
        message = QMPClient.make_execute_msg(command, arguments)
        passing = list(fds)
        if passing:
            message[_FDS] = passing
        try:
            async with asyncio.timeout(seconds):
                return await self._client.execute_msg(message)
        except TimeoutError:
            raise CommandTimeout(command, seconds) from None
        except ExecuteError as error:
            refusal = error.error.error
            raise CommandFailed(command, refusal.class_, refusal.desc) from None
        except BadReplyError as error:
            raise Interrupted(command, _cause(error)) from None
        except ExecInterruptedError:
            raise Interrupted(command, f"{self.name} hung up") from None
        except StateError:
            raise Disconnected(self.name, "the peer hung up") from None
        finally:
            passing.clear()

    def _dispatch(self, message: Mapping[str, object]) -> None:
        """Runs in the reader of the connection, which an exception would end."""
        if self.recorder is not None:
            self.recorder.event(str(message.get("event")), message.get("data"))
        event = decode_event(message)
        for stream in self._streams:
            stream.put(event)
        for listener in tuple(self._listeners):
            try:
                listener(message)
            except Exception:  # noqa: BLE001  a bug of theirs must not cut the monitor
                _log.exception("%s: a listener failed on event %s", self.name, message.get("event"))

    async def _watch_end(self) -> None:
        while self._client.runstate == Runstate.RUNNING:
            await self._client.runstate_changed()
        try:
            await self._client.disconnect()
        except Exception as error:  # noqa: BLE001  whatever ended the connection is raised here, of any type
            self._end(_cause(error))
        else:
            self._end("closed")

    def _end(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_result(why)
        for stream in self._streams:
            stream.close()


async def connect_unix(
    path: str, *, name: str | None = None, deadline: float = deadlines.CONNECT
) -> Monitor:
    """A session with the server at ``path``: one of our own control or introspection sockets, or QEMU's.

    :raises ConnectFailed: see `Monitor.connect`.
    """
    return await Monitor.connect(path, name=name or path, deadline=deadline)


async def _dial(path: str, name: str) -> socket.socket:
    try:
        return await sockets.connect_path(path)
    except OSError as error:
        raise ConnectFailed(name, _cause(error)) from error


def _cause(error: BaseException) -> str:
    """One line for people."""
    if isinstance(error, ConnectError):
        return _cause(error.exc)
    if isinstance(error, FileNotFoundError):
        return "no such socket; is it running?"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens on the socket; is it running?"
    if isinstance(error, (EOFError, ConnectionResetError, BrokenPipeError)):
        return "the peer hung up"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return (str(error) or type(error).__name__).splitlines()[0]
