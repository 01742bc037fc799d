"""Bytes between a websocket and a socket of the launcher, both ways, until either side ends.

Neither side is read faster than the other takes it. A side that ends has had everything first. A client that has vanished
is noticed: for a minute nothing came from it, not even the answer to a ping, and it took nothing either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from aiohttp import WSMsgType, web

_log = logging.getLogger(__name__)

_CHUNK: Final = 64 * 1024
PING_SECONDS: Final = 10.0
#: Without a sign of life.
DEAD_SECONDS: Final = 60.0
#: For the last bytes to the guest's side, once the client has closed.
_FLUSH_SECONDS: Final = 10.0
#: For the client to take the last bytes and answer our close.
CLOSE_SECONDS: Final = 5.0


class Relay:
    """One session. `run` once."""

    def __init__(
        self,
        ws: web.WebSocketResponse,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._ws = ws
        self._reader = reader
        self._writer = writer
        self._alive = asyncio.get_running_loop().time()
        self._guest_ended = False

    async def run(self) -> None:
        """Until one of them has ended; both are closed then."""
        tasks = {
            asyncio.create_task(self._to_guest(), name="client to guest"),
            asyncio.create_task(self._to_client(), name="guest to client"),
            asyncio.create_task(self._watch(), name="pings"),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._writer.transport.abort()
        if self._guest_ended:
            await self._ws.close()

    def _heard(self) -> None:
        self._alive = asyncio.get_running_loop().time()

    async def _to_guest(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                message = await self._ws.receive()
                self._heard()
                match message.type:
                    case WSMsgType.BINARY:
                        self._writer.write(message.data)
                        await self._writer.drain()
                    case WSMsgType.PING:
                        await self._ws.pong(message.data)
                    case WSMsgType.CLOSE | WSMsgType.CLOSING | WSMsgType.CLOSED | WSMsgType.ERROR:
                        break
                    case _:  # a text, or the answer to a ping
                        pass
        await self._flush()

    async def _flush(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._writer.wait_closed()

    async def _to_client(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := await self._reader.read(_CHUNK):
                await self._ws.send_bytes(chunk)
                self._heard()
            self._guest_ended = True

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        pinging: asyncio.Task[None] | None = None
        try:
            while loop.time() - self._alive < DEAD_SECONDS:
                await asyncio.sleep(PING_SECONDS)
                # A ping waits behind what the client hasn't taken; one at a time is enough.
                if pinging is None or pinging.done():
                    pinging = asyncio.create_task(self._send_ping(), name="ping")
        finally:
            if pinging is not None:
                pinging.cancel()
                await asyncio.wait({pinging})
        _log.info("a client has vanished")

    async def _send_ping(self) -> None:
        with contextlib.suppress(OSError):
            await self._ws.ping(b"keep alive")
