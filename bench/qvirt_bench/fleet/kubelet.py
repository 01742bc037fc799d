"""Scheduler and kubelets of many nodes, as far as the API server sees them: what they write for a pod that comes up, and no more.

That is: a binding; a status for containers that are being made, and one for containers that run; an Event for the binding and
three for each container; Ready, once the pod's readiness gates are open. (kube-scheduler and kubelet 1.20; kubelet's reads
before each status are left out.)
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

from qvirt_bench.fleet.api import Api, Object
from qvirt_bench.fleet.player import Player, event
from qvirt_handler.writer import now

_PODS: Final = "/api/v1/pods"
#: As many as a kubelet takes (its default).
PODS_PER_NODE: Final = 110
_EVENTS: Final = {
    "Pulled": "Container image already present on machine",
    "Created": "Created container",
    "Started": "Started container",
}


class Kubelets:
    """:param nodes: names.
    :param started: called with each pod whose containers have been started.
    :param ready: called with each pod that has become ready.
    """

    def __init__(
        self,
        api: Api,
        nodes: tuple[str, ...],
        started: Callable[[Object], None],
        ready: Callable[[Object], None],
    ) -> None:
        self._api = api
        self._started = started
        self._nodes: Iterator[str] = itertools.cycle(nodes)
        self._ready = ready
        self.play = Player(api, _PODS, self._step).play

    async def _step(self, pod: Object) -> None:
        status = pod["status"]
        if "deletionTimestamp" in pod["metadata"]:
            await self._api.delete(_path(pod))
        elif not pod["spec"].get("nodeName"):
            await self._bind(pod)
        elif "containerStatuses" not in status:
            await self._write(pod, "Pending", {"waiting": {"reason": "ContainerCreating"}})
        elif status["phase"] == "Pending":
            await self._start(pod)
        elif _condition(pod, "Ready") == "True":
            self._ready(pod)
        elif _gates_open(pod):
            await self._write(pod, "Running", {"running": {}})

    async def _bind(self, pod: Object) -> None:
        node, name = next(self._nodes), pod["metadata"]["name"]
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        await self._api.create(
            f"{_path(pod)}/binding", {"metadata": {"name": name}, "target": target}
        )
        await self._tell(pod, "default-scheduler", "Scheduled", f"Successfully assigned to {node}")

    async def _start(self, pod: Object) -> None:
        for container in pod["spec"]["containers"]:
            for reason, message in _EVENTS.items():
                await self._tell(pod, "kubelet", reason, f"{message} {container['name']}")
        self._started(pod)
        await self._write(pod, "Running", {"running": {}})

    async def _write(self, pod: Object, phase: str, state: Object) -> None:
        running = "running" in state
        ready = running and _gates_open(pod)
        closed = "ReadinessGatesNotReady" if running else "ContainersNotReady"
        status: Object = {
            "phase": phase,
            "conditions": [
                _made("Initialized", True),
                _made("ContainersReady", running, "ContainersNotReady"),
                _made("Ready", ready, closed),
            ],
            "containerStatuses": [_container(c, state) for c in pod["spec"]["containers"]],
        }
        if running:
            address = _address(pod)
            status |= {"podIP": address, "podIPs": [{"ip": address}]}
        await self._api.patch(f"{_path(pod)}/status", {"status": status}, "strategic")

    async def _tell(self, pod: Object, component: str, reason: str, message: str) -> None:
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/events"
        about = {**pod, "apiVersion": "v1", "kind": "Pod"}
        await self._api.create(path, event(about, component, reason, message))


def _path(pod: Object) -> str:
    meta = pod["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"


def _address(pod: Object) -> str:
    """The same each time."""
    digest = hashlib.sha256(pod["metadata"]["uid"].encode()).digest()
    return f"10.{digest[0]}.{digest[1]}.{digest[2]}"


def _condition(pod: Object, kind: str) -> str:
    found = (c["status"] for c in pod["status"].get("conditions") or () if c["type"] == kind)
    return next(found, "")


def _gates_open(pod: Object) -> bool:
    gates = pod["spec"].get("readinessGates") or ()
    return all(_condition(pod, gate["conditionType"]) == "True" for gate in gates)


def _made(kind: str, holds: bool, otherwise: str = "") -> Object:
    return {
        "type": kind,
        "status": str(holds),
        # Null takes away what was there.
        "reason": None if holds else otherwise,
        "lastProbeTime": None,
        "lastTransitionTime": now(),
    }


def _container(container: Object, state: Object) -> dict[str, Any]:
    running = "running" in state
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "sha256:0" if running else "",
        "ready": running,
        "started": running,
        "restartCount": 0,
        "state": {"running": {"startedAt": now()}} if running else state,
    }
