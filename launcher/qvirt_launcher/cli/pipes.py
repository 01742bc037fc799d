"""Bytes both ways, whatever carries them: a socket of this machine, or a stream of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Protocol

_CHUNK: Final = 65536


class Pipe(Protocol):
    """One end of a connection."""

    async def read(self) -> bytes:
        """What came; empty: nothing more comes."""

    def send(self, data: bytes) -> None:
        """Without waiting; see `drain`."""

    async def drain(self) -> None:
        """Until more may be sent.

        :raise OSError: the connection is lost.
        """

    def end(self) -> None:
        """Say that nothing more comes."""

    def abort(self) -> None:
        """Let go."""


class StreamPipe:
    """A socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(_CHUNK)
        except OSError:
            return b""

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    def end(self) -> None:
        # Of a connection that is lost there is nothing to end.
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def abort(self) -> None:
        self._writer.close()


async def relay(one: Pipe, other: Pipe) -> None:
    """Until both directions have ended, or one is lost; neither end is left open."""
    tasks = {
        asyncio.create_task(_pump(one, other), name="there"),
        asyncio.create_task(_pump(other, one), name="back"),
    }
    try:
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for pipe in (one, other):
            pipe.abort()


async def _pump(source: Pipe, sink: Pipe) -> None:
    try:
        while data := await source.read():
            sink.send(data)
            await sink.drain()
    except OSError:
        source.abort()
        sink.abort()
    else:
        sink.end()
