"""Writes to the API server: as it counts them itself, and one by one as a watch tells of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from qvirt_bench.errors import BenchError
from qvirt_kube.client import Object

#: Verb, resource, subresource.
Writes = Counter[tuple[str, str, str]]

_REQUEST: Final = re.compile(r"^apiserver_request_total\{(.*)\} ([0-9.e+]+)$", re.M)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_READS: Final = ("GET", "LIST", "WATCH", "WATCHLIST", "CONNECT")
_SECONDS: Final = 60.0
#: Of one object in a watch.
_LONGEST: Final = 1 << 24


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A change of an object that a watch has told of."""

    at: float
    type: str
    item: Object

    @property
    def name(self) -> str:
        """Of the object."""
        return str(self.item["metadata"]["name"])


class Watch:
    """All changes of a kind since it began, in their order."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.changed = asyncio.Event()

    def take(self, line: bytes) -> None:
        """One line of the API server's answer."""
        told = json.loads(line)
        if told["type"] == "ERROR":
            raise BenchError(f"the watch has ended: {told['object']}")
        self.seen.append(Seen(at=time.monotonic(), type=told["type"], item=told["object"]))
        self.changed.set()


@contextlib.asynccontextmanager
async def watching(config: str, path: str) -> AsyncIterator[Watch]:
    """Watch a collection, from its newest state on.

    :raise BenchError: in the body, as a cancellation's cause: the API server has hung up.
    """
    version = json.loads(await kubectl(config, "get", "--raw", f"{path}?limit=1"))
    query = f"watch=true&resourceVersion={version['metadata']['resourceVersion']}"
    process = await asyncio.create_subprocess_exec(
        *("kubectl", "get", "--raw", f"{path}?{query}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": config},
        limit=_LONGEST,
    )
    watch = Watch()
    try:
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(_read(process, watch))
            yield watch
            reader.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _read(process: asyncio.subprocess.Process, watch: Watch) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        watch.take(line)
    raise BenchError("the API server has ended a watch")


async def counted(config: str) -> Writes:
    """What the API server has counted since its start."""
    found: Writes = Counter()
    for labels, value in _REQUEST.findall(await kubectl(config, "get", "--raw", "/metrics")):
        seen = dict(_LABEL.findall(labels))
        if seen["verb"] not in _READS:
            found[seen["verb"], seen["resource"], seen.get("subresource", "")] += int(float(value))
    return found


async def kubectl(config: str, *arguments: str) -> str:
    """What it prints.

    :raise BenchError: it failed.
    """
    process = await asyncio.create_subprocess_exec(
        *("kubectl", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": config},
    )
    async with asyncio.timeout(_SECONDS):
        out, said = await process.communicate()
    if process.returncode:
        raise BenchError(f"kubectl {' '.join(arguments)}: {said.decode(errors='replace')[-500:]}")
    return out.decode()
