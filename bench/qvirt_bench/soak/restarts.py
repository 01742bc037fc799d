"""Our components are restarted in turn, each as it may happen to it; the guests are none the wiser."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from qvirt_bench.errors import BenchError
from qvirt_bench.live import Live
from qvirt_bench.soak.tally import Tally
from qvirt_bench.soak.watch import processes_of_pods
from qvirt_kube.client import Object
from qvirt_kube.errors import KubeError, NotFound

#: One at a time disturbs a machine's cluster.
_LOCK: Final = "/run/qvirt-disturb.lock"
#: The kubelet waits ever longer before it starts a container again that dies often.
_READY_SECONDS: Final = 400.0
#: Pods and ready ones when all is well on a cluster of one node: of virt-controller the leader alone.
_READY: Final = {"virt-api": 1, "virt-controller": 1, "virt-handler": 1}
_PODS: Final = {"virt-api": 1, "virt-controller": 2, "virt-handler": 1}


async def restart_forever(live: Live, tally: Tally, every: float, calm: asyncio.Lock) -> None:
    """One of them every so many seconds.

    :param calm: held while nothing may be restarted.
    """
    ways: tuple[tuple[str, Callable[[Live], Awaitable[None]]], ...] = (
        ("virt-handler killed", _kill_handler),
        ("virt-api deleted", _delete_api),
        ("virt-controller's leader deleted", _delete_leader),
    )
    for what, act in itertools.cycle(ways):
        await asyncio.sleep(every)
        async with calm, _alone():
            print(f"{tally.now:6.0f} s: {what}", flush=True)
            with tally.disturbing(what):
                await act(live)
                await ready(live)
        print(f"{tally.now:6.0f} s: ready again", flush=True)


async def ready(live: Live) -> None:
    """Until every component is as it should be.

    :raise BenchError: it doesn't come to be.
    """
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while not await _is_ready(live):
                await asyncio.sleep(1)
    except TimeoutError as error:
        raise BenchError(f"qvirt is not ready again in {_READY_SECONDS:.0f} s") from error


async def _is_ready(live: Live) -> bool:
    try:
        pods = await live.parts()
    except KubeError:
        return False
    for part, count in _PODS.items():
        of_part = _of(pods, part)
        if len(of_part) != count or sum(map(_ready, of_part)) != _READY[part]:
            return False
    return True


async def _kill_handler(live: Live) -> None:
    """As by the kernel for want of memory; done when the container is another one."""
    pod = max(_of(await live.parts(), "virt-handler"), key=_age)
    inside = processes_of_pods().get(pod["metadata"]["uid"], {})
    killed = [pid for pid, name in inside.items() if name != "pause"]
    if not killed:
        raise BenchError("virt-handler's processes are not on this machine: is it the node?")
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # Until the kubelet has noticed, the pod counts as ready.
    before = pod["metadata"]["uid"], _restarts(pod)
    async with asyncio.timeout(_READY_SECONDS):
        while True:
            with contextlib.suppress(KubeError):
                found = _of(await live.parts(), "virt-handler")
                if before not in [(one["metadata"]["uid"], _restarts(one)) for one in found]:
                    return
            await asyncio.sleep(1)


async def _delete_api(live: Live) -> None:
    pods = _of(await live.parts(), "virt-api")
    await _delete(live, max(pods, key=_age))


async def _delete_leader(live: Live) -> None:
    leaders = [pod for pod in _of(await live.parts(), "virt-controller") if _ready(pod)]
    for pod in leaders:
        await _delete(live, pod)


async def _delete(live: Live, pod: Object) -> None:
    path = f"/api/v1/namespaces/kubevirt/pods/{pod['metadata']['name']}"
    with contextlib.suppress(NotFound):
        await live.kube.delete(path)


def _of(pods: list[Object], part: str) -> list[Object]:
    return [pod for pod in pods if pod["metadata"]["labels"].get("kubevirt.io") == part]


def _ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(
        c["type"] == "Ready" and c["status"] == "True" for c in conditions
    )


def _age(pod: Object) -> str:
    """More is younger."""
    return str(pod["metadata"]["creationTimestamp"])


def _restarts(pod: Object) -> int:
    return sum(one["restartCount"] for one in pod["status"].get("containerStatuses") or ())


@contextlib.asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    with open(_LOCK, "w", encoding="ascii") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(1)
            else:
                break
        yield
