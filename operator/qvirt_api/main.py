"""virt-api: serve, and keep certificates and settings fresh, until SIGTERM. Every replica does the same."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from qvirt_api.arguments import Arguments, parse
from qvirt_api.keeper import Keeper, Report
from qvirt_api.server import application, serving
from qvirt_api.state import State
from qvirt_api.subresources.joining import Subresources
from qvirt_api.tls import ClientTls, ServerTls
from qvirt_crds.configuration import settle
from qvirt_crds.kubevirt import NAME
from qvirt_kube import buffers
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError, NoAccess, NotFound

_log = logging.getLogger(__name__)

#: Seconds between two looks at the KubeVirt object.
_SETTINGS_EVERY: Final = 10.0
#: Seconds that we go on serving when told to stop: Endpoints learn of it later than we do.
_LINGER: Final = 3.0
_USAGE: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """The process's exit status: 0 stopped by a signal, 2 no API server to turn to."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    buffers.shrink()
    try:
        asyncio.run(run(arguments))
    except NoAccess as error:
        _log.error("%s", error)
        return _USAGE
    return 0


async def run(arguments: Arguments) -> None:
    """Until SIGTERM or SIGINT.

    :raise OSError: the port is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    state, tls, node_tls = State(), ServerTls(), ClientTls()

    def tell(report: Report) -> None:
        if report.serving is not None and tls.serve(report.serving):
            _log.info("serving with a new certificate")
        state.bundle = report.bundle
        node_tls.update(report.client, report.bundle)
        # Once in place they stay: a webhook configuration that somebody has just added must not take us away.
        state.ready = state.ready or (report.settled and report.serving is not None)

    async with Kube(arguments.kubeconfig) as kube, AsyncExitStack() as stack:
        app = application(kube, state)
        subresources = Subresources(
            kube,
            arguments.namespace,
            tls.trust_clients,
            node_tls.context,
            arguments.guestfs_image,
            arguments.novnc,
        )
        subresources.join(app)
        await subresources.look()
        port = await stack.enter_async_context(serving(app, tls, arguments.host, arguments.port))
        _log.info("listening on port %d", port)
        keeper = Keeper(kube, arguments.namespace, tell, lives=arguments.lives)
        tasks: tuple[asyncio.Task[object], ...] = (
            asyncio.create_task(keeper.run(), name="certificates"),
            asyncio.create_task(_follow_settings(kube, arguments.namespace, state)),
            asyncio.create_task(subresources.follow(), name="front proxy"),
            asyncio.create_task(stop.wait(), name="stop"),
        )
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
            await asyncio.sleep(_LINGER)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _follow_settings(kube: Kube, namespace: str, state: State) -> None:
    path = f"/apis/kubevirt.io/v1/namespaces/{namespace}/kubevirts/{NAME}"
    while True:
        try:
            state.configuration = settle(await kube.get(path)).configuration
        except NotFound:
            state.configuration = settle(None).configuration
        except KubeError as error:
            # The last known hold.
            _log.warning("the settings can't be read: %s", error)
        await asyncio.sleep(_SETTINGS_EVERY)
