"""What people do to guests through the API server: consoles, screens, forwarded ports, pictures, buttons."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from qvirt_bench.errors import BenchError
from qvirt_launcher.cli.cluster import api, websocket
from qvirt_launcher.cli.cluster.errors import ClusterError
from qvirt_launcher.cli.cluster.kubeconfig import Target
from qvirt_launcher.cli.cluster.websocket import WebSocket

_INSTANCES = "virtualmachineinstances"
DEADLINE = 60.0


@contextlib.asynccontextmanager
async def stream(target: Target, name: str, verb: str) -> AsyncIterator[WebSocket]:
    """An open stream of an instance: ``console``, ``vnc``, ``portforward/PORT``; dropped without a word afterwards.

    :raise ClusterError: it is refused, or the API server can't be reached.
    """
    url = f"{target.server}{api.path(target.namespace, _INSTANCES, name, verb)}"
    opened = await websocket.connect(url, target.tls, target.headers)
    try:
        yield opened
    finally:
        opened.abort()


async def until(opened: WebSocket, sign: bytes, seconds: float = DEADLINE) -> bytes:
    """Read until this has come; what has.

    :raise BenchError: it hasn't in time, or the stream ended before.
    """
    seen = b""
    try:
        async with asyncio.timeout(seconds):
            while sign not in seen:
                chunk = await opened.read()
                if not chunk:
                    raise BenchError(f"the stream ended ({opened.code}) before {sign!r}")
                seen += chunk
    except TimeoutError as error:
        raise BenchError(f"no {sign!r} in {seconds:.0f} s after {seen[-200:]!r}") from error
    return seen


async def picture(target: Target, name: str) -> bytes:
    """The guest's screen, as PNG.

    :raise ClusterError: it is refused.
    """
    found = await asyncio.to_thread(
        api.request, target, "GET", api.path(target.namespace, _INSTANCES, name, "vnc/screenshot")
    )
    if not found.startswith(b"\x89PNG"):
        raise ClusterError(f"the screenshot of {name} is no PNG: {found[:40]!r}")
    return found


async def press(target: Target, name: str, button: str) -> None:
    """``pause``, ``unpause`` and their like.

    :raise ClusterError: it is refused.
    """
    await asyncio.to_thread(
        api.request, target, "PUT", api.path(target.namespace, _INSTANCES, name, button)
    )
