"""A shell in a guest, on its serial console."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from qvirt_bench import pod
from qvirt_bench.errors import BenchError

_DEADLINE: Final = 60.0
#: What the demo guest says when the last of its services is up; before that, its processor is busy.
READY: Final = b"ssh: ready"
_SILENT: Final = "stty -echo; dmesg -n 1; PS1=; PS2="


class Shell:
    """Root's shell in the demo guest; commands one after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0

    async def log_in(self) -> None:
        """From the login prompt, as soon as the guest has come to rest."""
        seen = b""
        async with asyncio.timeout(pod.DEADLINE):
            while pod.PROMPT not in seen or READY not in seen:
                seen += await self._read()
        self._write("root")
        await self._answer(_DEADLINE, b"# ")
        self._write(_SILENT)
        await self.run("true")

    async def run(self, command: str, *, deadline: float = _DEADLINE) -> str:
        """Run one command, return what it said.

        :raise BenchError: it failed.
        """
        self._number += 1
        # In two parts, so that the line as the terminal echoes it is not taken for the end.
        self._write(f"{command}; echo end-''{self._number}-$?.")
        sign = re.compile(rb"end-%d-(\d+)\." % self._number)
        async with asyncio.timeout(deadline):
            seen = b""
            while (found := sign.search(seen)) is None:
                seen += await self._read()
        text = seen[: found.start()].decode(errors="replace").replace("\r", "")
        if found[1] != b"0":
            raise BenchError(f"in the guest, {command!r} fails with {found[1].decode()}: {text}")
        return text.strip()

    async def _answer(self, deadline: float, sign: bytes) -> None:
        seen = b""
        async with asyncio.timeout(deadline):
            while sign not in seen:
                seen += await self._read()

    async def _read(self) -> bytes:
        chunk = await self._reader.read(4096)
        if not chunk:
            raise BenchError("the guest's console ended")
        return chunk

    def _write(self, line: str) -> None:
        self._writer.write(f"{line}\n".encode())


@contextlib.asynccontextmanager
async def opened(console: Path) -> AsyncIterator[Shell]:
    """A shell on a serial console's socket, logged in; what the guest said before must still come out of it."""
    reader, writer = await asyncio.open_unix_connection(str(console))
    try:
        shell = Shell(reader, writer)
        await shell.log_in()
        yield shell
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
