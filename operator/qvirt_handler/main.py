"""``python -m qvirt_handler --node-name NODE``: wiring only."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

from qvirt_crds.meta import JsonObject
from qvirt_crds.names import GROUP, NODE_SERVER_PORT
from qvirt_crds.node_report import FILE_NAME, KVM_DEVICE
from qvirt_handler import health, node, node_facts
from qvirt_handler.finder import Finder, ProcFinder
from qvirt_handler.keeper import World
from qvirt_handler.keepers import Keepers, forget_dead
from qvirt_handler.node_server.reach import Reach
from qvirt_handler.node_server.server import NodeServer
from qvirt_handler.writer import Writer
from qvirt_kube import buffers
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError, NoAccess
from qvirt_kube.watching import Interest, watching

_log = logging.getLogger(__name__)

KVM_RESOURCE: Final = "devices.kubevirt.io/kvm"
NODE_LABEL: Final = "kubevirt.io/nodeName"
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
    buffers.shrink()
    try:
        asyncio.run(_serve(options, find or ProcFinder()))
    except NoAccess as error:
        _log.error("%s", error)
        return 2
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
    add(
        "--device-plugin-dir",
        default="",
        metavar="DIR",
        help="the kubelet's, e.g. /var/lib/kubelet/device-plugins: offer devices.kubevirt.io/kvm there (default: offer nothing)",
    )
    add(
        "--port",
        type=int,
        default=NODE_SERVER_PORT,
        help="where virt-api is served, over TLS with certificates on both sides (default: %(default)s)",
    )
    add("--verbose", action="store_true", help="log details")
    return parser


async def _serve(options: argparse.Namespace, find: Finder) -> None:
    if options.kubeconfig:
        os.environ["KUBECONFIG"] = options.kubeconfig  # kopf looks there
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Kube(options.kubeconfig) as kube, health.serving(options.health):
        await forget_dead(options.state_dir)
        world = World(
            node=options.node_name,
            finder=find,
            writer=Writer(kube, options.node_name),
            state_dir=options.state_dir,
        )
        keepers = Keepers(world)
        report = os.path.join(options.state_dir, FILE_NAME)
        reach = Reach(kube, options.node_name, find, keepers.vmi)
        tasks: tuple[asyncio.Task[Any], ...] = (
            asyncio.create_task(node.beat(kube, options.node_name, report), name="heartbeat"),
            asyncio.create_task(_offer(options.device_plugin_dir, report), name="device plugin"),
            asyncio.create_task(NodeServer(kube, reach, options.port).run(), name="node server"),
            asyncio.create_task(_watch(kube, keepers, options.node_name), name="watch"),
            asyncio.create_task(stop.wait(), name="stop"),
        )
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await keepers.aclose()
            await node.leave(kube, options.node_name)
        for task in done:
            await task


async def _offer(directory: str, report: str) -> None:
    """Offer KVM to pods, as far as there is any. Never returns."""
    if not directory:
        await asyncio.Event().wait()
    # Late: who offers nothing needs no gRPC.
    from qvirt_handler.device_plugin.plugin import Offer, Plugin

    offer = Offer(resource=KVM_RESOURCE, device=KVM_DEVICE)
    await Plugin(offer, directory, lambda: node_facts.kvm_trouble(report)).run()


async def _watch(kube: Kube, keepers: Keepers, node_name: str) -> None:
    """Feed the keepers with this node's VMIs, narrowed by the API server. Never returns."""
    vmis = Interest(
        group=GROUP, plural="virtualmachineinstances", label=f"{NODE_LABEL}={node_name}"
    )

    def tell(vmi: JsonObject, gone: bool) -> None:
        if gone:
            keepers.drop(vmi)
        else:
            keepers.update(vmi)

    await _await_kind(kube, vmis)
    async with watching(kube, (vmis,), tell):
        await asyncio.Event().wait()


async def _await_kind(kube: Kube, interest: Interest) -> None:
    """Until the API server knows the kind: the watch looks for it only once."""
    while True:
        try:
            await kube.get(interest.path(), limit="1", labelSelector=interest.label)
        except KubeError as error:
            _log.warning("waiting for the API server to serve %s: %s", interest.plural, error)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return
