"""Console and screen: one session of each for a VMI; a new one takes the place of the old one, as with KubeVirt."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final, Literal

from aiohttp import web

from qvirt_crds import names
from qvirt_handler.errors import LauncherMissing
from qvirt_handler.node_server.answers import Refusal
from qvirt_handler.node_server.reach import Reach, Target
from qvirt_handler.node_server.relay import CLOSE_SECONDS, Relay

_log = logging.getLogger(__name__)

Kind = Literal["console", "vnc"]

_SOCKETS: Final[dict[Kind, str]] = {
    "console": names.CONSOLE_SOCKET,
    "vnc": names.VNC_SOCKET,
}


class Streams:
    """All sessions of this node."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._sessions: dict[tuple[str, Kind], asyncio.Task[object]] = {}

    @property
    def count(self) -> int:
        """Sessions that are open."""
        return len(self._sessions)

    async def serve(self, request: web.Request, target: Target, kind: Kind) -> web.StreamResponse:
        """A websocket to the end of its session. Whatever stands against it is said before the upgrade.

        :raises Refusal: it can't be had.
        """
        _check_device(target, kind)
        preserve = request.query.get("preserveSession") == "true"
        if kind == "vnc" and preserve and (target.uid, kind) in self._sessions:
            raise Refusal(503, "Active VNC connection. Request denied.")
        try:
            sock = await self._reach.dial(target, _SOCKETS[kind])
        except LauncherMissing as error:
            _log.info("%s of %s: %s", kind, target.name, error)
            raise Refusal(400, "VMI is not running") from error
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        try:
            async with self._place(target.uid, kind):
                return await _run(request, reader, writer)
        finally:
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def _place(self, uid: str, kind: Kind) -> AsyncIterator[None]:
        """The session's own, after whoever had it has left."""
        task = asyncio.current_task()
        assert task is not None
        key = uid, kind
        old = self._sessions.get(key)
        self._sessions[key] = task
        try:
            if old is not None:
                old.cancel()
                await asyncio.wait({old})
            yield
        finally:
            # Somebody newer may have come.
            if self._sessions.get(key) is task:
                del self._sessions[key]

    async def aclose(self) -> None:
        """End all sessions."""
        tasks = set(self._sessions.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _run(
    request: web.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> web.StreamResponse:
    ws = web.WebSocketResponse(
        protocols=(names.PLAIN_STREAM,), autoping=False, compress=False, timeout=CLOSE_SECONDS
    )
    if not ws.can_prepare(request):
        raise Refusal(400, "this is a websocket: send an upgrade request")
    try:
        await ws.prepare(request)
        await Relay(ws, reader, writer).run()
    finally:
        # Without a close frame the client knows that it was cut off; after one, this does nothing any more.
        if not ws.closed and request.transport is not None:
            request.transport.abort()
    return ws


def _check_device(target: Target, kind: Kind) -> None:
    devices = target.spec().spec.domain.devices
    match kind:
        case "console":
            if devices.autoattach_serial_console is False:
                raise Refusal(400, "No serial consoles are present.")
        case "vnc":
            if devices.autoattach_graphics_device is False:
                raise Refusal(400, "No graphics devices are present.")
