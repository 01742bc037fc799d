"""``/healthz``: the process answers. ``/readyz``: it leads; so `kubectl get pods` shows the standby as 0/1."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web


class Health:
    """What the probes are told."""

    def __init__(self) -> None:
        self.leading = False

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        if self.leading:
            return web.Response(text="leading\n")
        return web.Response(status=503, text="standing by\n")


_GRACE: Final = 1.0


@asynccontextmanager
async def serving(health: Health, host: str, port: int) -> AsyncIterator[int]:
    """Answer probes; gives the port (0 in: any free one).

    :raise OSError: the port is taken.
    """
    app = web.Application()
    app.router.add_get("/healthz", health.healthz)
    app.router.add_get("/readyz", health.readyz)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
