"""From a key to its echo, at both ends of one guest's console."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Final

from qvirt_bench import subresources
from qvirt_bench.errors import BenchError
from qvirt_crds import names, pod_layout
from qvirt_launcher.cli.cluster.kubeconfig import Target

KEYS: Final = 20
ROUNDS: Final = 10
_KEY_SECONDS: Final = 10.0
#: Nothing more comes of a console that was silent for so long.
_SILENCE: Final = 0.05
_RUB_OUT: Final = b"\x15"


class _Console:
    """One end."""

    def __init__(
        self, read: Callable[[], asyncio.Future[bytes]], write: Callable[[bytes], None]
    ) -> None:
        self._read = read
        self.write = write
        self._waiting: asyncio.Future[bytes] | None = None

    async def next(self, seconds: float) -> bytes:
        """What comes next; empty: nothing in time. What comes later is not lost."""
        if self._waiting is None:
            self._waiting = self._read()
        done, _ = await asyncio.wait({self._waiting}, timeout=seconds)
        if not done:
            return b""
        found = self._waiting.result()
        self._waiting = None
        if not found:
            raise BenchError("the guest's console ended")
        return found

    async def silence(self) -> None:
        """Read what there is."""
        while await self.next(_SILENCE):
            pass

    async def key(self) -> float:
        """Milliseconds until a key has come back."""
        begun = time.perf_counter()
        self.write(b"k")
        end = begun + _KEY_SECONDS
        while b"k" not in await self.next(max(0.0, end - time.perf_counter())):
            if time.perf_counter() >= end:
                raise BenchError(f"the guest does not echo a key in {_KEY_SECONDS:.0f} s")
        return (time.perf_counter() - begun) * 1000

    def stop(self) -> None:
        """Let go of the read under way."""
        if self._waiting is not None:
            self._waiting.cancel()


async def echo(
    target: Target, guest: str, launcher: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Medians in ms: at the launcher's socket, through virt-api. Both sit at one console, which shows everything to both.

    :param launcher: its process number.
    """
    path = f"/proc/{launcher}/root{pod_layout.RUN_DIR}/{names.CONSOLE_SOCKET}"
    reader, writer = await asyncio.open_unix_connection(path)
    direct = _Console(lambda: asyncio.ensure_future(reader.read(65536)), writer.write)
    found: tuple[list[float], list[float]] = [], []
    try:
        async with subresources.stream(target, guest, "console") as opened:
            ours = _Console(lambda: asyncio.ensure_future(opened.read()), opened.send)
            try:
                for _ in range(ROUNDS):
                    for console, kept in zip((direct, ours), found, strict=True):
                        direct.write(_RUB_OUT)
                        keys = [await _one_key(console, direct, ours) for _ in range(KEYS)]
                        kept.append(round(statistics.median(keys), 2))
            finally:
                ours.stop()
    finally:
        direct.stop()
        writer.transport.abort()
    return tuple(found[0]), tuple(found[1])


async def _one_key(console: _Console, *all_of_them: _Console) -> float:
    for one in all_of_them:
        await one.silence()
    return await console.key()
