"""Network namespaces: a pod's, and that of another pod, with a cable between. This machine's own is never touched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from qvirt_bench.errors import BenchError
from qvirt_netsetup import netns

_DEADLINE: Final = 30.0
#: Of the pod, and of the other end of the cable.
POD: Final = "10.77.0.2"
WORLD: Final = "10.77.0.1"
PREFIX: Final = 24
_POD_MAC: Final = "02:00:00:00:77:02"


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's namespace with its ``eth0``, and the world that this leads to."""

    pod: str
    world: str

    @property
    def pod_path(self) -> str:
        """The file that stands for the pod's namespace."""
        return f"/run/netns/{self.pod}"

    async def connect(self, port: int) -> socket.socket:
        """A TCP connection from the world to the pod's address."""

        async def dial() -> socket.socket:
            return socket.create_connection((POD, port), timeout=_DEADLINE)

        sock = await netns.run_inside(f"/run/netns/{self.world}", dial)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    async def in_pod(self, *command: str) -> str:
        """Run a command in the pod's namespace."""
        return await _run("ip", "netns", "exec", self.pod, *command)


@contextlib.asynccontextmanager
async def pair(name: str) -> AsyncIterator[Pair]:
    """The two, wired, with addresses; gone afterwards."""
    made = Pair(pod=f"qvbench-{os.getpid()}-{name}", world=f"qvbench-{os.getpid()}-{name}-world")
    async with contextlib.AsyncExitStack() as stack:
        for space in (made.pod, made.world):
            await _run("ip", "netns", "add", space)
            stack.push_async_callback(_run, "ip", "netns", "del", space)
            await _run("ip", "-n", space, "link", "set", "lo", "up")
        await _run(
            *("ip", "-n", made.pod, "link", "add", "eth0", "address", _POD_MAC, "type", "veth"),
            *("peer", "name", "eth0", "netns", made.world),
        )
        for space, address in ((made.pod, POD), (made.world, WORLD)):
            await _run("ip", "-n", space, "addr", "add", f"{address}/{PREFIX}", "dev", "eth0")
            await _run("ip", "-n", space, "link", "set", "eth0", "up")
        await _run("ip", "-n", made.pod, "route", "add", "default", "via", WORLD)
        yield made


async def _run(*argv: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(_DEADLINE):
        output, _ = await process.communicate()
    text = output.decode(errors="replace")
    if process.returncode:
        raise BenchError(f"{' '.join(argv)}: exit status {process.returncode}: {text}")
    return text
