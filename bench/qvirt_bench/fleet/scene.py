"""virt-controller on a real API server, with everybody that it has to do with: kubelets, virt-handlers, crowds of objects."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from qvirt_bench import smaps
from qvirt_bench.errors import BenchError, first
from qvirt_bench.fleet.api import Api, Object
from qvirt_bench.fleet.crowd import Crowd
from qvirt_bench.fleet.handlers import Handlers
from qvirt_bench.fleet.kubelet import PODS_PER_NODE, Kubelets
from qvirt_bench.fleet.objects import NAMESPACE, bare_pod, instance, ownerless_launcher
from qvirt_bench.fleet.site import Component, beat, make_nodes, site
from qvirt_cluster.control_plane import free_ports

#: A controller that uses less of a core has nothing to do.
_RESTING: Final = 0.05
_REST_DEADLINE: Final = 600.0
_PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
VMIS: Final = f"/apis/kubevirt.io/v1/namespaces/{NAMESPACE}/virtualmachineinstances"

#: Milliseconds of CPU time, by who has spent them.
Spent = Counter[str]
_PLAYERS: Final = "the players"
_SERVERS: Final = ("kube-apiserver", "etcd")


def spent() -> Spent:
    """CPU time so far of this process and of those that it has started, by their names."""
    found = Spent({_PLAYERS: round(1000 * sum(os.times()[:2]))})
    for pid, name in smaps.descendants(os.getpid()).items():
        if pid != os.getpid():
            with contextlib.suppress(OSError):
                who = name if name in _SERVERS else "virt-controller"
                found[who] += smaps.cpu_milliseconds(pid)
    return found


class Scene:
    """All that plays, and what is measured."""

    def __init__(self, api: Api, controller: Component, nodes: int) -> None:
        self.api = api
        self.controller = controller
        self.nodes = nodes
        self.pods = Crowd(api, _PODS, bare_pod)
        self.launchers = Crowd(api, _PODS, ownerless_launcher, "launcher")
        self.vmis = Crowd(api, VMIS, instance)

    def pod_ready(self, pod: Object) -> None:
        """Of either kind, or an instance's."""
        if "ownerReferences" not in pod["metadata"]:
            bare = len(pod["spec"]["containers"]) == 1
            (self.pods if bare else self.launchers).came_up(pod)

    async def rest(self) -> float:
        """Until the controller has nothing to do; since when."""
        return await self.controller.rest(_RESTING, _REST_DEADLINE)

    async def restart(self) -> float:
        """Seconds from SIGTERM until all is level: an instance made meanwhile runs, and the controller has nothing left to do."""
        begun = time.monotonic()
        await self.controller.stop()
        await self.controller.start()
        late = await self.vmis.one("late")
        rest = await self.rest()
        return max(late, rest) - begun


@contextlib.asynccontextmanager
async def running(pods: int) -> AsyncIterator[Scene]:
    """Everybody plays; all is gone afterwards.

    :param pods: for how many there shall be nodes.
    """
    async with site("virt-controller") as (_, api, kubeconfig):
        nodes = tuple(f"node-{number}" for number in range(pods // PODS_PER_NODE + 1))
        await make_nodes(api, nodes)
        await api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        with tempfile.NamedTemporaryFile(prefix="qvirt-bench-") as log:
            flags = ("--launcher-image=launcher", "--namespace=kubevirt", "--identity=bench")
            where = ("--kubeconfig", kubeconfig, "--health-host=127.0.0.1")
            port = f"--health-port={free_ports(1)[0]}"
            controller = Component("qvirt_operator", (*flags, *where, port), Path(log.name))
            scene = Scene(api, controller, len(nodes))
            await controller.start()
            try:
                await asyncio.sleep(2)
                await scene.rest()
                async with _playing(scene, nodes):
                    yield scene
            finally:
                await controller.stop()


@contextlib.asynccontextmanager
async def _playing(scene: Scene, nodes: tuple[str, ...]) -> AsyncIterator[None]:
    """Everybody but those who are measured; whoever gives up, or a virt-controller that ends, ends the whole."""
    handlers = Handlers(scene.api, scene.vmis.came_up)
    kubelets = Kubelets(scene.api, nodes, handlers.launch, scene.pod_ready)
    players = (kubelets.play(), handlers.play(), beat(scene.api, nodes), scene.controller.vigil())
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(player) for player in players]
            yield
            for task in tasks:
                task.cancel()
    except* BenchError as errors:
        raise first(errors) from errors
