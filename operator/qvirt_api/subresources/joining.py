"""The subresource API as a part of virt-api's server."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from qvirt_api.subresources import information
from qvirt_api.subresources.authentication import FrontProxySource
from qvirt_api.subresources.call import Services
from qvirt_api.subresources.node import NodeAgents
from qvirt_api.subresources.page_files import NOVNC, PageFiles
from qvirt_api.subresources.routes import Handler, routes
from qvirt_kube.client import Kube


class Subresources:
    """:param namespace: of virt-handler's pods.

    :param trust: makes the server ask clients for a certificate of this authority (PEM).
    :param node_tls: the context for connections to virt-handler; may raise a QvirtError while there is none.
    :param guestfs_image: see `information.About`.
    :param novnc: see `page_files.PageFiles`.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        trust: Callable[[str], None],
        node_tls: Callable[[], ssl.SSLContext],
        guestfs_image: str = "",
        novnc: Path = NOVNC,
    ) -> None:
        self._front = FrontProxySource(kube, trust)
        agents = NodeAgents(kube, node_tls, namespace)
        facts, files = information.about(guestfs_image), PageFiles(novnc)
        self.services = Services(kube, self._front, agents, facts, files)

    def join(self, app: web.Application) -> None:
        """Add the routes, after all others of the server; sessions end with it."""
        app.middlewares.append(self._let_go)
        app.add_routes(routes(self.services))
        app.on_shutdown.append(self._close)

    async def look(self) -> None:
        """Learn of the front proxy, before anybody connects: a connection that was not asked for a certificate never is."""
        await self._front.look()

    async def follow(self) -> None:
        """Keep up with the front proxy until cancelled; before its first look nobody is believed."""
        await self._front.follow()

    @web.middleware
    async def _let_go(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """While the front proxy is unknown no connection is kept: it would stay one that was not asked who it is."""
        response = await handler(request)
        if not self._front.known:
            response.force_close()
        return response

    async def _close(self, _app: web.Application) -> None:
        await self.services.sessions.close()
