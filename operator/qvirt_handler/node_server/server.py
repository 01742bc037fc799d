"""The door: HTTPS for one client, virt-api, which shows a certificate of our authority with its name in it.

Opened when our certificate appears, opened anew when it or the authority is replaced; what is under way goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from qvirt_crds.names import HANDLER_CLIENT_CN
from qvirt_handler.node_server import credentials, verbs
from qvirt_handler.node_server.answers import Refusal, status
from qvirt_handler.node_server.credentials import Credentials, CredentialsUnusable
from qvirt_handler.node_server.reach import Reach, Target
from qvirt_handler.node_server.streams import Kind, Streams
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError

_log = logging.getLogger(__name__)

_BASE: Final = "/v1/namespaces/{namespace}/virtualmachineinstances/{name}/"
#: Between looks for certificates: until there are some, and then.
_MISSING_SECONDS: Final = 2.0
_PRESENT_SECONDS: Final = 30.0
_BACKLOG: Final = 128
#: For requests that are under way when we end.
_GOODBYE_SECONDS: Final = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NodeServer:
    """:param port: 0: one that is free.
    :param rhythm: seconds between looks for certificates, without and with some.
    """

    def __init__(
        self,
        kube: Kube,
        reach: Reach,
        port: int,
        rhythm: tuple[float, float] = (_MISSING_SECONDS, _PRESENT_SECONDS),
    ) -> None:
        self._kube = kube
        self._reach = reach
        self._rhythm = rhythm
        self._address = port
        self._streams = Streams(reach)
        self._runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=_GOODBYE_SECONDS
        )
        self._door: web.SockSite | None = None
        self._listening: socket.socket | None = None
        self._current: Credentials | None = None
        self._complaint = ""

    @property
    def port(self) -> int:
        """Where it listens; 0: nowhere yet."""
        return 0 if self._listening is None else int(self._listening.getsockname()[1])

    @property
    def sessions(self) -> int:
        """Consoles and screens that are open."""
        return self._streams.count

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._runner.setup()
        try:
            while True:
                await self._refresh()
                seconds = self._rhythm[self._current is not None]
                await asyncio.sleep(seconds * random.uniform(0.8, 1.2))
        finally:
            await self._streams.aclose()
            await self._runner.cleanup()
            if self._listening is not None:
                self._listening.close()

    async def _refresh(self) -> None:
        try:
            found = await credentials.fetch(self._kube)
            if found != self._current:
                await self._open(credentials.server_context(found))
                self._current = found
            self._complaint = ""
        except (KubeError, CredentialsUnusable, OSError) as error:
            # Said once, not every two seconds.
            if str(error) != self._complaint:
                self._complaint = str(error)
                kept = "the old ones stay" if self._current else "nothing is served"
                _log.warning("no new certificates, %s: %s", kept, error)

    async def _open(self, context: ssl.SSLContext) -> None:
        if self._listening is None:
            self._listening = _listen(self._address)
        old, self._door = (
            self._door,
            web.SockSite(self._runner, self._listening.dup(), ssl_context=context),
        )
        if old is not None:
            # Closes its copy of the listening socket; its connections stay.
            await old.stop()
        await self._door.start()
        _log.info("serving virt-api on port %d", self.port)

    # --- requests ---

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[_admit, _explain])
        router = application.router
        for kind in ("console", "vnc"):
            router.add_get(_BASE + kind, self._stream(kind))
        for verb in ("pause", "unpause", "reset", "softreboot", "freeze", "unfreeze"):
            router.add_put(_BASE + verb, self._verb(verb))
        for verb in ("vnc/screenshot", "guestosinfo", "userlist", "filesystemlist"):
            router.add_get(_BASE + verb, self._verb(verb), allow_head=False)
        return application

    def _stream(self, kind: Kind) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            return await self._streams.serve(request, await self._target(request), kind)

        return serve

    def _verb(self, verb: str) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            return await verbs.carry_out(verb, request, self._reach, await self._target(request))

        return serve

    async def _target(self, request: web.Request) -> Target:
        place = request.match_info
        return await self._reach.target(place["namespace"], place["name"])


def _listen(port: int) -> socket.socket:
    """On all addresses of both families, where there are both."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
        )
    return socket.create_server(("", port), backlog=_BACKLOG)


@web.middleware
async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """TLS has seen that the certificate is of our authority; here, that it is virt-api's."""
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    shown = credentials.common_names(certificate)
    if shown != [HANDLER_CLIENT_CN]:
        _log.warning("refused a client whose certificate is for %s", shown)
        return status(403, f"only {HANDLER_CLIENT_CN} is admitted")
    return await handler(request)


@web.middleware
async def _explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals as Kubernetes' clients read them."""
    try:
        return await handler(request)
    except Refusal as error:
        return status(error.code, str(error))
    except web.HTTPException as error:
        return status(error.status, f"{request.method} {request.path}: {error.reason}")
    except Exception as error:  # noqa: BLE001  a bug in one request must not be silent, nor end the others
        _log.exception("%s %s: this is a bug", request.method, request.path)
        return status(500, f"{type(error).__name__}: see virt-handler's log")
