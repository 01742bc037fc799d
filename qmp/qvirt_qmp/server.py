"""A server that speaks QMP's dialect to many clients, on unix sockets and socketpairs.

Plain asyncio with our `framer`, rather than `qemu.qmp`'s `AsyncProtocol`: that class reads streams, which lose descriptors, ends only when the client
reads, keeps what it can't send without a limit, and needs most of its methods overridden to be a server.
`QMPClient` and ``qmp-shell`` are clients of this server in the tests.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

from qvirt_qmp import dialect, sockets
from qvirt_qmp.errors import ListenFailed
from qvirt_qmp.session import Call, ClientInfo, Handler, Limits, Session
from qvirt_qmp.verbs import Grade

__all__ = ["Call", "ClientInfo", "Handler", "Limits", "Server"]

_log = logging.getLogger(__name__)

_BACKLOG: Final = 64
#: accept() fails with these while the process or the machine is short of something; that passes.
_SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SHORTAGE_PAUSE: Final = 0.2


class Server:
    """Many doors, one handler.

    :param handler: carries out every command but ``qmp_capabilities``. Commands of one client come one after the other, those of
        different clients at once.
    :param greeting: the ``version`` object of the greeting, e.g. ``{"qemu": {"major": 7, ...}, "package": "..."}``. May be replaced
        at any time, for clients to come.
    :param max_clients: over all doors; the next is told so and closed.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        greeting: Mapping[str, object],
        max_clients: int = 64,
        limits: Limits | None = None,
    ) -> None:
        self.greeting = greeting
        self._handler = handler
        self._limits = limits or Limits()
        self._max_clients = max_clients
        self._count = 0
        self._closing = False
        self._doors: dict[asyncio.Task[None], tuple[socket.socket, sockets.BoundPath]] = {}
        self._sessions: dict[asyncio.Task[None], Session] = {}

    @property
    def clients(self) -> tuple[ClientInfo, ...]:
        """Who is connected now."""
        return tuple(session.client for session in self._sessions.values())

    async def listen(
        self, path: str, *, grade: Grade, mode: int = 0o600, name: str | None = None
    ) -> None:
        """Serve at ``path``, which may be longer than ``sun_path``. Whoever can open the socket has ``grade``.

        :param mode: the socket file's permissions; connecting needs write permission.
        :param name: the door's name in `ClientInfo`; by default the file's.
        :raises ListenFailed: somebody listens there, the path is something else, or can't be made.
        """
        try:
            sock, bound = sockets.listen_path(path, mode, _BACKLOG)
        except OSError as error:
            raise ListenFailed(path, error.strerror or str(error)) from error
        label = name or os.path.basename(path)
        door = asyncio.create_task(self._accept(sock, grade, label), name=f"accept {label}")
        self._doors[door] = sock, bound

    async def adopt(self, sock: socket.socket, *, grade: Grade, name: str) -> None:
        """Serve the peer of a connected unix socket, e.g. one end of a socketpair. The socket is the server's from now on."""
        sock.setblocking(False)
        self._admit(sock, grade, name)

    def broadcast(
        self, event_name: str, data: object, timestamp: Mapping[str, object] | None = None
    ) -> None:
        """Send an event to every client that has negotiated. Never blocks.

        :param timestamp: QMP's object; None: now.
        :raises TypeError, ValueError, OverflowError: ``data`` can't be said in JSON.
        """
        line = dialect.event(event_name, data, timestamp or _now())
        for session in tuple(self._sessions.values()):
            if session.negotiated:
                session.send(line)

    async def aclose(self, *, deadline: float = 5.0) -> None:
        """Close all doors, remove their files, let clients have the answers to what they sent for up to ``deadline`` seconds, then cut them off."""
        self._closing = True
        for door, (_, bound) in self._doors.items():
            door.cancel()
            bound.unlink()
        if self._doors:
            await asyncio.wait(self._doors)
        for listener, _ in self._doors.values():
            listener.close()
        self._doors.clear()
        if self._sessions:
            for session in self._sessions.values():
                session.hang_up()
            _, late = await asyncio.wait(self._sessions, timeout=deadline)
            for task in late:
                self._sessions[task].cut("the server closes")
            if late:
                _, stuck = await asyncio.wait(late, timeout=deadline)
                for task in stuck:
                    _log.error("%s does not let itself be cancelled", task.get_name())

    async def _accept(self, listener: socket.socket, grade: Grade, name: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno not in _SHORTAGE:
                    _log.warning("%s: accept: %s", name, error)
                await asyncio.sleep(_SHORTAGE_PAUSE)
            else:
                self._admit(sock, grade, name)

    def _admit(self, sock: socket.socket, grade: Grade, name: str) -> None:
        try:
            peer = sockets.peer_of(sock)
            if self._closing or len(self._sessions) >= self._max_clients:
                sock.send(dialect.failure(dialect.GENERIC, "too many clients: try later", None))
                raise ConnectionAbortedError("too many clients")
        except OSError as error:
            _log.info("%s: a client was turned away: %s", name, error)
            sock.close()
            return
        self._count += 1
        client = ClientInfo(
            grade=grade,
            uid=peer.uid,
            gid=peer.gid,
            pid=peer.pid,
            listener=name,
            number=self._count,
        )
        session = Session(
            sock, client, handler=self._handler, version=self.greeting, limits=self._limits
        )
        task = asyncio.create_task(session.run(), name=f"client {client}")
        self._sessions[task] = session
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        session = self._sessions.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("client %s: the session failed", session.client, exc_info=error)


def _now() -> Mapping[str, object]:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return {"seconds": seconds, "microseconds": nanoseconds // 1000}
