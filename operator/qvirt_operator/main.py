"""virt-controller: stand by, lead, stop.

Only the leader watches and acts; one that lost the lease ends, as its picture of the world is nobody's any more, and is
started again by its Deployment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from qvirt_crds.names import GROUP
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError, NoAccess
from qvirt_operator.arguments import Arguments, parse
from qvirt_operator.errors import LeadershipLost
from qvirt_operator.health import Health, serving
from qvirt_operator.installation import Installation
from qvirt_operator.instances import Instances
from qvirt_operator.known import Known
from qvirt_operator.lease import Elector
from qvirt_operator.machines import Machines
from qvirt_operator.nodes import Nodes
from qvirt_operator.replicaset_kinds import CURRENT, SEEDS
from qvirt_operator.replicasets import ReplicaSets
from qvirt_operator.watch import caught_up, watching
from qvirt_operator.work import WORKERS, Key, Reconcile, WorkQueue

_log = logging.getLogger(__name__)

LEASE: Final = "virt-controller"
EXIT_LOST: Final = 1
EXIT_USAGE: Final = 2
_KINDS: Final = (
    "v1/kubevirts",
    "v1/virtualmachineinstancereplicasets",
    "v1/virtualmachineinstances",
    "v1/virtualmachines",
    "v1alpha1/virtualmachinereplicasets",
)
_VERSIONS: Final = ("v1", "v1alpha1")
_KINDS_RETRY: Final = 2.0
#: Connections for what must not wait behind the workers: the lease.
_SPARE: Final = 4


def main(argv: Sequence[str] | None = None) -> int:
    """The process's exit status: 0 stopped by a signal, 1 lost the lease, 2 no API server to turn to."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if arguments.kubeconfig is not None:
        os.environ["KUBECONFIG"] = arguments.kubeconfig
    try:
        asyncio.run(run(arguments))
    except LeadershipLost as error:
        _log.error("%s; ending, so that nobody acts twice", error)
        return EXIT_LOST
    except NoAccess as error:
        _log.error("%s", error)
        return EXIT_USAGE
    return 0


async def run(arguments: Arguments) -> None:
    """Until SIGTERM or SIGINT.

    :raise LeadershipLost: the lease went to another, or could not be renewed.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = Health()
    async with (
        Kube(arguments.kubeconfig, connections=WORKERS + _SPARE) as kube,
        serving(health, arguments.health_host, arguments.health_port) as port,
    ):
        _log.info("%s answers probes on port %d", arguments.identity, port)
        elector = Elector(kube, arguments.namespace, LEASE, arguments.identity)
        if not await _until(stop, _ready_to_lead(kube, elector)):
            return
        try:
            health.leading = True
            await _lead(kube, arguments, elector, stop)
        finally:
            health.leading = False
            await elector.release()


async def _ready_to_lead(kube: Kube, elector: Elector) -> None:
    await _await_kinds(kube)
    await elector.acquire()


async def _lead(kube: Kube, arguments: Arguments, elector: Elector, stop: asyncio.Event) -> None:
    """Watch and work until told to stop.

    :raise LeadershipLost: see `Elector.keep`.
    """
    known = Known()
    queue = WorkQueue(reconciler(kube, arguments, known))
    async with watching(kube, known, queue.nudge, arguments.watch_namespace):
        tasks: tuple[asyncio.Future[Any], ...] = (
            asyncio.create_task(elector.keep(), name="lease"),
            asyncio.create_task(_work(kube, known, queue, arguments), name="queue"),
            asyncio.create_task(Nodes(kube, known, queue.nudge).run(), name="nodes"),
            asyncio.create_task(stop.wait(), name="stop"),
        )
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # A step under way is cut short: whoever leads next sees how far it came.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            await task


async def _work(kube: Kube, known: Known, queue: WorkQueue, arguments: Arguments) -> None:
    await caught_up(kube, known, arguments.watch_namespace)
    await queue.run()


def reconciler(kube: Kube, arguments: Arguments, known: Known) -> Reconcile:
    """Whom to ask for which kind of object."""
    installation = Installation(kube, arguments.settings, arguments.namespace)
    instances, machines = Instances(kube, known, installation), Machines(kube)
    replica_sets, old_replica_sets = ReplicaSets(kube, CURRENT), ReplicaSets(kube, SEEDS)

    async def reconcile(key: Key) -> float | None:
        match key.kind:
            case "vmi":
                return await instances.reconcile(key)
            case "vm":
                return await machines.reconcile(key)
            case "vmirs":
                return await replica_sets.reconcile(key)
            case "vmrs":
                return await old_replica_sets.reconcile(key)
            case "kv":
                return await installation.reconcile(key)

    return reconcile


async def _await_kinds(kube: Kube) -> None:
    """Wait until the API server serves our kinds: the watch looks for them once."""
    missing: list[str] = []
    while True:
        try:
            served = {
                f"{version}/{resource['name']}"
                for version in _VERSIONS
                for resource in (await kube.get(f"/apis/{GROUP}/{version}"))["resources"]
            }
            missing = [kind for kind in _KINDS if kind not in served]
            if not missing:
                return
            _log.info("waiting for the CRDs of %s", ", ".join(missing))
        except KubeError as error:
            _log.info("waiting for the CRDs of kubevirt.io: %s", error)
        await asyncio.sleep(_KINDS_RETRY)


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work unless stopped before; True: it is done."""
    working = asyncio.create_task(work, name="standby")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
            return True
        return False
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
