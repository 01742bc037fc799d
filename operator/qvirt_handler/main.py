"""``python -m qvirt_handler --node-name NODE``: wiring only."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

from qvirt_crds.names import GROUP
from qvirt_handler import handlers, node
from qvirt_handler.finder import Finder, ProcFinder
from qvirt_handler.keeper import World
from qvirt_handler.keepers import Keepers, forget_dead
from qvirt_handler.writer import Writer
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError

_log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 5.0


def main(arguments: Sequence[str] | None = None, find: Finder | None = None) -> int:
    """Take care of this node's guests until SIGTERM.

    :param find: how launchers are found; None: by their pods' cgroups.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        format="%(levelname)s %(name)s: %(message)s",
        level=logging.DEBUG if options.verbose else logging.INFO,
        stream=sys.stderr,
    )
    if not options.verbose:
        for chatty in ("kopf", "aiohttp.access"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
    if not options.node_name:
        _log.error("whose guests? say it with --node-name or NODE_NAME")
        return 2
    asyncio.run(_serve(options, find or ProcFinder()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="virt-handler", description="Takes care of the virtual machines of one node."
    )
    add = parser.add_argument
    add("--node-name", default=os.environ.get("NODE_NAME", ""), help="this node (NODE_NAME)")
    add("--kubeconfig", help="default: the pod's service account, else KUBECONFIG")
    add(
        "--state-dir",
        default="/run/qvirt-handler",
        metavar="DIR",
        help="remembers networks; must outlive this process, and not the machine's boot",
    )
    add(
        "--health",
        metavar="URL",
        help="serve a liveness endpoint, e.g. http://0.0.0.0:8081/healthz",
    )
    add("--verbose", action="store_true", help="log details")
    return parser


async def _serve(options: argparse.Namespace, find: Finder) -> None:
    if options.kubeconfig:
        os.environ["KUBECONFIG"] = options.kubeconfig  # kopf looks there
    async with Kube(options.kubeconfig) as kube:
        await forget_dead(options.state_dir)
        world = World(
            node=options.node_name,
            finder=find,
            writer=Writer(kube, options.node_name),
            state_dir=options.state_dir,
        )
        keepers = Keepers(world)
        heart = asyncio.create_task(node.beat(kube, options.node_name), name="heartbeat")
        try:
            await _await_kind(kube)
            await handlers.watch(keepers, options.node_name, options.health)
        finally:
            heart.cancel()
            await asyncio.wait({heart})
            await keepers.aclose()
            await node.leave(kube, options.node_name)


async def _await_kind(kube: Kube) -> None:
    """Until the API server knows our kind: kopf looks for it only once."""
    while True:
        try:
            await kube.get(f"/apis/{GROUP}/v1/{handlers.PLURAL}", limit="1")
        except KubeError as error:
            _log.warning("waiting for the API server to serve %s: %s", handlers.PLURAL, error)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return
