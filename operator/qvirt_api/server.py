"""virt-api's HTTPS server: webhooks and probes; the subresources of the aggregated API join here."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web

from qvirt_api import admission, conversion, eviction, review
from qvirt_api.errors import BadReview
from qvirt_api.state import State
from qvirt_api.tls import ServerTls
from qvirt_crds.meta import JsonObject
from qvirt_kube.client import Kube

_log = logging.getLogger(__name__)

#: Of a request. A list that is read in another version comes to be converted in one piece.
_LARGEST: Final = 256 * 2**20
#: Seconds that requests under way have when the server ends.
_GRACE: Final = 5.0
#: Seconds that TLS handshakes under way have then.
_HANDSHAKE: Final = 0.2
#: Seconds after the last connection.
_FAREWELL: Final = 0.05
STATE: Final = web.AppKey("state", State)
KUBE: Final = web.AppKey("kube", Kube)


def application(kube: Kube, state: State) -> web.Application:
    """All routes.

    :param kube: for routes that read the cluster; the webhooks don't.
    """
    app = web.Application(client_max_size=_LARGEST)
    app[STATE] = state
    app[KUBE] = kube
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_post("/mutate", _mutate)
    app.router.add_post("/validate", _validate)
    app.router.add_post("/validate-eviction", _validate_eviction)
    app.router.add_post("/convert", _convert)
    return app


@asynccontextmanager
async def serving(
    app: web.Application, tls: ServerTls, host: str | None, port: int
) -> AsyncIterator[int]:
    """Listen; gives the port (0 in: any free one).

    :param host: None: all addresses.
    :raise OSError: the port is taken.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls.context)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        for listener in list(runner.sites):
            await listener.stop()
        # Who was shaking hands has a connection then, or none.
        await asyncio.sleep(_HANDSHAKE)
        clients = runner.server.connections if runner.server is not None else []
        transports = [client.transport for client in clients if client.transport is not None]
        await runner.cleanup()
        for transport in transports:
            # Who hasn't said goodbye by now, in TLS's way, is not waited for: our loop may end.
            transport.abort()
        # What served them is cancelled, and takes some turns of the loop to end.
        await asyncio.sleep(_FAREWELL)


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    if request.app[STATE].ready:
        return web.Response(text="ok\n")
    return web.Response(status=503, text="certificates are not in place yet\n")


async def _mutate(request: web.Request) -> web.Response:
    try:
        asked = review.read(await request.read())
    except BadReview as error:
        return web.Response(status=400, text=f"{error}\n")
    configuration = request.app[STATE].configuration
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _json(admission.mutate(asked, configuration, lambda: str(uuid.uuid4()), now))


async def _validate(request: web.Request) -> web.Response:
    try:
        asked = review.read(await request.read())
    except BadReview as error:
        return web.Response(status=400, text=f"{error}\n")
    answer = admission.validate(asked, request.app[STATE].configuration)
    if not answer["response"]["allowed"]:
        said = answer["response"]["status"]["message"]
        what = f"{asked.operation} of {asked.resource.resource} {asked.namespace}/{asked.name}"
        _log.info("refused %s by %s: %s", what, asked.user_info.username, said)
    return _json(answer)


async def _validate_eviction(request: web.Request) -> web.Response:
    try:
        asked = review.read(await request.read())
    except BadReview as error:
        return web.Response(status=400, text=f"{error}\n")
    default = request.app[STATE].configuration.eviction_strategy
    return _json(await eviction.answer(request.app[KUBE], asked, default))


async def _convert(request: web.Request) -> web.Response:
    content = await request.read()
    try:
        # A list may take seconds; probes and admission are answered meanwhile.
        return _json(await asyncio.to_thread(_converted, content))
    except BadReview as error:
        return web.Response(status=400, text=f"{error}\n")


def _converted(content: bytes) -> JsonObject:
    try:
        asked = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadReview(f"not JSON: {error}") from error
    return conversion.review(asked)


def _json(answer: JsonObject) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")
