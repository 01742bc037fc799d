"""The endpoint for the kubelet's probes: this process answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

_GRACE: Final = 1.0


@asynccontextmanager
async def serving(url: str | None) -> AsyncIterator[None]:
    """Answer at this URL while inside, e.g. ``http://0.0.0.0:8081/healthz``; None: nowhere.

    :raises OSError: the port is taken.
    """
    if not url:
        yield
        return
    parts = urlsplit(url)
    app = web.Application()
    app.router.add_get(parts.path or "/", _answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE)
    await runner.setup()
    try:
        await web.TCPSite(runner, parts.hostname, parts.port or 80).start()
        yield
    finally:
        await runner.cleanup()


async def _answer(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")
