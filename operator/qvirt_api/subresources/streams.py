"""Consoles and screens: a byte pipe between the client's websocket and virt-handler's.

A session ends as its other side does: closed by the guest's side with a close frame, taken over by another client
without one (the client sees 1006, and virtctl says why). No data is kept here: who does not read stops who writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Final, Literal

import aiohttp
from aiohttp import web

from qvirt_api.subresources.errors import bad_request
from qvirt_api.subresources.node import MESSAGE_BYTES
from qvirt_crds.names import PLAIN_STREAM

Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse
#: closed: with a close frame. lost: without. deaf: the other socket takes no more.
End = Literal["closed", "lost", "deaf"]

#: For a client's answer to a close frame; a forwarded port may have megabytes on their way to it.
_CLOSE_SECONDS: Final = 5.0
FLUSH_SECONDS: Final = 120.0
#: A peer that vanished is noticed after 30 s + 3 * 10 s of silence.
_KEEPALIVE: Final = (
    (socket.TCP_KEEPIDLE, 30),
    (socket.TCP_KEEPINTVL, 10),
    (socket.TCP_KEEPCNT, 3),
)
GONE: Final = (ConnectionError, aiohttp.ClientError)


class Sessions:
    """The open ones, to end them when virt-api does."""

    def __init__(self) -> None:
        self._open: set[web.WebSocketResponse] = set()

    def __len__(self) -> int:
        return len(self._open)

    @contextlib.asynccontextmanager
    async def upgraded(
        self, request: web.Request, near: web.WebSocketResponse
    ) -> AsyncIterator[None]:
        """Answer the client's handshake; afterwards nothing of the connection is left, however the context ends."""
        await near.prepare(request)
        keep_alive(request.transport)
        self._open.add(near)
        try:
            yield
        finally:
            self._open.discard(near)
            if not near.closed:
                # No close frame: the client sees that its session was cut.
                drop(request)

    async def close(self) -> None:
        """Say to all clients that the server goes away."""
        async with asyncio.TaskGroup() as group:
            for near in tuple(self._open):
                group.create_task(_close(near, aiohttp.WSCloseCode.GOING_AWAY), name="closing")


def websocket(request: web.Request, *, raw: bool = False) -> web.WebSocketResponse:
    """The response to a client that wants a stream; not sent yet, so errors can still be ordinary responses.

    :param raw: the caller takes care of pings and of the client's close frame.
    :raise StatusError: 400, the client asks for no websocket.
    """
    near = web.WebSocketResponse(
        timeout=FLUSH_SECONDS if raw else _CLOSE_SECONDS,
        protocols=(PLAIN_STREAM,),
        compress=False,
        max_msg_size=MESSAGE_BYTES,
        autoclose=not raw,
        autoping=not raw,
    )
    if not near.can_prepare(request).ok:
        raise bad_request("this is a stream: ask for it with a websocket handshake (version 13)")
    return near


def keep_alive(transport: asyncio.BaseTransport | None) -> None:
    """Let the kernel find out that a silent peer is gone."""
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None:
        return
    # A connection that is lost already needs none.
    with contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            found.setsockopt(socket.IPPROTO_TCP, option, value)


def drop(request: web.Request) -> None:
    """End the connection at once; what was written and not sent is lost."""
    transport = request.transport
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


async def relay(near: web.WebSocketResponse, far: aiohttp.ClientWebSocketResponse) -> None:
    """Until one side ends. The client's socket gets a close frame if the node's had one."""
    async with asyncio.TaskGroup() as group:
        up = group.create_task(_pump(near, far), name="client to node")
        down = group.create_task(_pump(far, near), name="node to client")
        await first_of((up, down))
    if down.done() and not down.cancelled() and down.result() == "closed":
        await _close(near, aiohttp.WSCloseCode.OK)


async def first_of(tasks: Iterable[asyncio.Task[End]]) -> None:
    """Wait for one to end, then end the others."""
    waiting = set(tasks)
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


async def _pump(source: Socket, sink: Socket) -> End:
    while True:
        message = await source.receive()
        match message.type:
            case aiohttp.WSMsgType.BINARY:
                try:
                    await sink.send_bytes(message.data)
                except GONE:
                    return "deaf"
            case aiohttp.WSMsgType.TEXT:
                continue
            case aiohttp.WSMsgType.CLOSE:
                return "closed"
            case _:
                return "lost"


async def _close(near: web.WebSocketResponse, code: int) -> None:
    with contextlib.suppress(TimeoutError, *GONE):
        async with asyncio.timeout(FLUSH_SECONDS):
            await near.close(code=code)
