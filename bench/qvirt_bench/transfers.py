"""Bytes from and to a port of a guest's pod, by several ways, and the CPU time of those who move them."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal, assert_never

import msgspec

from qvirt_bench import peer, pipes, smaps
from qvirt_launcher.cli.cluster import api, kubeconfig

MB: Final = 10**6
_BLOCK: Final = MB
#: Of all transfers that run at once.
_PATIENCE: Final = 240.0

#: A plain socket; virt-api behind the API server; the API server's own proxy, which needs no virt-api.
Way = Literal["direct", "forwarded", "proxied"]
Direction = Literal["down", "up"]


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """Where a guest is, for each way."""

    config: str
    namespace: str
    guest: str
    pod: str
    address: str


def dial(ends: Ends, way: Way, port: int, count: int = 0) -> pipes.Pipe:
    """An open connection.

    :param count: bytes that ``proxied`` asks for.
    :raise BenchError: refused; OSError: nobody listens.
    """
    match way:
        case "direct":
            return pipes.Direct(ends.address, port)
        case "forwarded":
            verb = f"portforward/{port}"
            path = api.path(ends.namespace, "virtualmachineinstances", ends.guest, verb)
            return pipes.Forwarded(_target(ends), path)
        case "proxied":
            path = f"/api/v1/namespaces/{ends.namespace}/pods/{ends.pod}:{port}/proxy/{count}"
            return pipes.Proxied(_target(ends), path)
        case _:
            assert_never(way)


def _target(ends: Ends) -> kubeconfig.Target:
    return kubeconfig.load([Path(ends.config)], namespace=ends.namespace)


def transfer(ends: Ends, way: Way, port: int, direction: Direction, count: int) -> float:
    """MB/s, from the moment that the connection stands."""
    pipe = dial(ends, way, port, count)
    try:
        begun = time.monotonic()
        if way != "proxied":
            pipe.send(count.to_bytes(peer.HEAD, "big"))
        match direction:
            case "down":
                pipe.take(count)
            case "up":
                block = bytes(_BLOCK)
                for _ in range(count // _BLOCK):
                    pipe.send(block)
                pipe.take(len(peer.DONE))
        return round(count / (time.monotonic() - begun) / MB, 1)
    finally:
        pipe.close()


class Several:
    """Transfers at once, by processes of their own: as many as there are CPUs, so that no interpreter's lock is measured."""

    def __init__(self) -> None:
        self._processes = os.cpu_count() or 1
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(self._processes, mp_context=spawn)

    async def __aenter__(self) -> Several:
        # All of them are there and have imported what they need.
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(
                *(loop.run_in_executor(self._pool, time.sleep, 1) for _ in range(self._processes))
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._pool.shutdown)

    async def run(self, ends: Ends, way: Way, port: int, streams: int, count: int) -> float:
        """MB/s of so many transfers from the port, all together; each of its share of ``count``."""
        shares = [len(range(number, streams, self._processes)) for number in range(self._processes)]
        loop = asyncio.get_running_loop()
        begun = time.monotonic()
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(
                *(
                    loop.run_in_executor(
                        self._pool, _threads, ends, way, port, share, count // streams
                    )
                    for share in shares
                    if share
                )
            )
        return round(count / (time.monotonic() - begun) / MB, 1)


def _threads(ends: Ends, way: Way, port: int, streams: int, count: int) -> None:
    with ThreadPoolExecutor(streams) as threads:
        for done in [
            threads.submit(transfer, ends, way, port, "down", count) for _ in range(streams)
        ]:
            done.result()


class Costs:
    """CPU seconds of all who move the bytes."""

    #: The end of a word of the command line -> who it is.
    _WHO: Final = {
        "qvirt_api": "virt-api",
        "kube-apiserver": "kube-apiserver",
        "qvirt_bench.peer": "peer",
    }

    def __init__(self) -> None:
        self._spent: dict[str, dict[str, list[float]]] = {}
        self._before: dict[str, float] = {}

    def start(self) -> None:
        """A transfer begins."""
        self._before = self._used()

    def stop(self, what: str, count: int) -> None:
        """It has ended."""
        row = self._spent.setdefault(what, {})
        for who, seconds in self._used().items():
            row.setdefault(who, []).append((seconds - self._before[who]) / count * 10**9)

    def of(self, what: str, who: str) -> float:
        """CPU seconds for each GB, the median."""
        return statistics.median(self._spent[what][who])

    def table(self) -> tuple[tuple[str, ...], ...]:
        """For a chapter."""
        who = list(next(iter(self._spent.values()), {}))
        return (
            ("CPU seconds for each GB", *who),
            *((what, *(f"{self.of(what, one):.2f}" for one in who)) for what in self._spent),
        )

    def _used(self) -> dict[str, float]:
        """Until now."""
        found = dict.fromkeys(self._WHO.values(), 0.0)
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError):
                    if who := self._who(name):
                        found[who] += smaps.cpu_ticks(int(name)) / smaps.TICK
        found["the client"] = time.process_time()
        return found

    def _who(self, pid: str) -> str | None:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            words = file.read().split("\0")[:3]
        # nsenter becomes what it starts; other words of its line are none of these.
        names = (self._WHO.get(os.path.basename(word)) for word in words)
        return next(filter(None, names), None)
