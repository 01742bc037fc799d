"""A UDP port of this machine in front of streams of datagrams: each client has a stream of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, cast

from qvirt_crds.errors import QvirtError
from qvirt_launcher.cli.failure import show
from qvirt_launcher.cli.pipes import Pipe

#: A client that has said nothing for so long, and heard nothing, is forgotten.
_IDLE_SECONDS: Final = 120.0
_WAITING: Final = 64


class DatagramServer(asyncio.DatagramProtocol):
    """:param connect: a new stream to the guest; each of its messages is a datagram."""

    def __init__(self, connect: Callable[[], Awaitable[Pipe]]) -> None:
        self._connect = connect
        self._transport: asyncio.DatagramTransport | None = None
        self._clients: dict[Any, asyncio.Queue[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self, address: str, port: int) -> AsyncIterator[int]:
        """:raise OSError: the port is taken."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(address, port))
        try:
            yield int(transport.get_extra_info("sockname")[1])
        finally:
            transport.abort()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        queue = self._clients.get(addr)
        if queue is None:
            queue = self._clients[addr] = asyncio.Queue(_WAITING)
            task = asyncio.create_task(self._serve(addr, queue), name=f"datagrams of {addr}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # What a slow way can't take is lost, as datagrams are.
        with contextlib.suppress(asyncio.QueueFull):
            queue.put_nowait(data)

    async def _serve(self, client: Any, queue: asyncio.Queue[bytes]) -> None:
        try:
            pipe = await self._connect()
        except QvirtError as error:
            show(error)
            del self._clients[client]
            return
        back = asyncio.create_task(self._answer(client, pipe), name=f"answers to {client}")
        try:
            while not back.done():
                async with asyncio.timeout(_IDLE_SECONDS):
                    pipe.send(await queue.get())
                    await pipe.drain()
        except (TimeoutError, OSError):
            return
        finally:
            del self._clients[client]
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            pipe.abort()

    async def _answer(self, client: Any, pipe: Pipe) -> None:
        while data := await pipe.read():
            if self._transport is not None:
                self._transport.sendto(data, client)
