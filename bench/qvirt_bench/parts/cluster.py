"""Creation -> Running on a real cluster, in turns with bare pods, and the API writes that it took."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import msgspec

from qvirt_bench import api_writes, cpu_shares, live
from qvirt_bench.api_writes import Seen, Watch, Writes
from qvirt_bench.cpu_shares import Shares
from qvirt_bench.errors import BenchError
from qvirt_bench.figures import Curve, Figure, Measured, Plot
from qvirt_crds.quantity import parse_bytes
from qvirt_kube.client import Object
from qvirt_kube.errors import NotFound

#: Objects of each kind in all, and seconds between two creations (KubeVirt's protocol has 100 of them, 0.1 s apart).
_COUNT: Final = int(os.environ.get("QVIRT_BENCH_VMIS", "50"))
_SPACING: Final = 0.1
#: That many of them exist at once: all, and so few that two cores can start them as they come.
_AT_ONCE: Final = tuple(dict.fromkeys((min(10, _COUNT), _COUNT)))
#: The few come so many times, one batch after another.
_BATCHES: Final = 3
_NAMESPACE: Final = "qvirt-bench-cluster"
_DEADLINE: Final = 600.0
#: Of memory that a pod of ours asks for, with a margin; and what is kept of a node's pods and memory for others.
_POD_BYTES: Final = 176 << 20
_SPARE_PODS: Final = 5
_SPARE_BYTES: Final = 1 << 30
#: PUT and PATCH of instances, and PATCH of pods, for each (peers.md 3.2, v1.8).
_KUBEVIRT_WRITES: Final = 8.5
#: virt-controller's condition of a pod: the one thing that qvirt writes into a pod that is there.
_GATE: Final = "kubevirt.io/virtual-machine-unpaused"

Kind = Literal["pods", "virtualmachineinstances"]
_CHANGES: Final = ("PUT", "PATCH", "APPLY")


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Objects that existed at the same time."""

    #: Seconds from creation to Running, in the order of creation.
    seconds: tuple[float, ...]
    #: Everybody's, as the API server counts them; and one by one, those of our objects and pods.
    writes: Writes
    ours: Writes
    cpu: Shares


class Cluster:
    """The cluster of a run, watched."""

    def __init__(self, here: live.Live, pods: Watch, instances: Watch, pause: str) -> None:
        self._here = here
        self._watches: dict[Kind, Watch] = {"pods": pods, "virtualmachineinstances": instances}
        self._pause = pause

    async def batch(self, kind: Kind, names: Sequence[str]) -> Batch:
        """Create, wait until all run and are ready, delete, wait until all is gone."""
        make = self._pod if kind == "pods" else _instance
        watch, pods = self._watches[kind], self._watches["pods"]
        first, first_pod = len(watch.seen), len(pods.seen)
        before, parts = await api_writes.counted(self._here.config), await self._here.parts()
        begun = cpu_shares.spent(parts)
        created: dict[str, float] = {}
        creating = asyncio.create_task(self._create(kind, names, make, created))
        running = await self._until_ready(watch, first, names)
        await creating
        cpu = cpu_shares.spent(parts)
        cpu.subtract(begun)
        writes = await api_writes.counted(self._here.config) - before
        ours = _instance_writes(watch.seen[first:], self._here.namespace, writes)
        ours["PATCH", "pods", "status"] = _pod_writes(pods.seen[first_pod:])
        await self._clear(kind, names)
        seconds = tuple(running[name] - created[name] for name in names)
        return Batch(seconds=seconds, writes=writes, ours=ours, cpu=cpu)

    async def _create(
        self,
        kind: Kind,
        names: Sequence[str],
        make: Callable[[str], Object],
        created: dict[str, float],
    ) -> None:
        for name in names:
            created[name] = time.monotonic()
            await self._here.kube.create(self._here.path(kind), make(name))
            await asyncio.sleep(max(0.0, created[name] + _SPACING - time.monotonic()))

    async def _until_ready(
        self, watch: Watch, first: int, names: Sequence[str]
    ) -> dict[str, float]:
        running: dict[str, float] = {}
        ready: set[str] = set()
        try:
            async with asyncio.timeout(_DEADLINE):
                while ready < set(names):
                    watch.changed.clear()
                    for seen in watch.seen[first:]:
                        first += 1
                        if self._is_ours(seen, names) and _phase(seen) == "Running":
                            running.setdefault(seen.name, seen.at)
                            if _condition(seen.item, "Ready") == "True":
                                ready.add(seen.name)
                    if ready < set(names):
                        await watch.changed.wait()
        except TimeoutError as error:
            missing = ", ".join(sorted(set(names) - ready))
            raise BenchError(f"not running and ready in {_DEADLINE:.0f} s: {missing}") from error
        return running

    def _is_ours(self, seen: Seen, names: Sequence[str]) -> bool:
        """:raise BenchError: it has failed."""
        here = seen.item["metadata"]["namespace"] == self._here.namespace and seen.name in names
        if here and _phase(seen) == "Failed":
            raise BenchError(f"{seen.name} has failed: {seen.item['status']}")
        return here

    async def _clear(self, kind: Kind, names: Sequence[str]) -> None:
        for name in names:
            with contextlib.suppress(NotFound):
                await self._here.kube.delete(self._here.path(kind, name), {"gracePeriodSeconds": 0})
        async with asyncio.timeout(_DEADLINE):
            while await self._here.items("pods") or await self._here.items(kind):
                await asyncio.sleep(1)

    def _pod(self, name: str) -> Object:
        container = {"name": "pause", "image": self._pause, "imagePullPolicy": "IfNotPresent"}
        spec = {
            "containers": [container],
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


async def measure() -> Measured:
    """Batches in turns: pods, guests."""
    pods: dict[int, list[float]] = {}
    guests: dict[int, list[float]] = {}
    writes: Writes = Writes()
    ours: Writes = Writes()
    async with contextlib.AsyncExitStack() as stack:
        here = await stack.enter_async_context(live.cluster(_NAMESPACE))
        watch = api_writes.watching
        pods_seen = await stack.enter_async_context(watch(here.config, here.path("pods")))
        path = "/apis/kubevirt.io/v1/virtualmachineinstances"
        seen = await stack.enter_async_context(watch(here.config, path))
        cluster = Cluster(here, pods_seen, seen, await _pause_image(here))
        room = await _room(here)
        # Images, and whatever else is slow the first time.
        await cluster.batch("pods", ["w"])
        await cluster.batch("virtualmachineinstances", ["w"])
        for at_once in _AT_ONCE:
            for names in _named(min(at_once, room)):
                base = await cluster.batch("pods", names)
                batch = await cluster.batch("virtualmachineinstances", names)
                pods.setdefault(at_once, []).extend(base.seconds)
                guests.setdefault(at_once, []).extend(batch.seconds)
                writes += batch.writes
                ours += batch.ours
        total = sum(map(len, guests.values()))
        cpu = cpu_shares.told(batch.cpu, base.cpu, len(batch.seconds))
    figures = [figure for at_once in _AT_ONCE for figure in _figures(at_once, guests, pods)]
    figures.append(_writes_figure(ours, total))
    notes = (*_NOTES, cpu, *((f"The node has room for {room} at once.",) if room < _COUNT else ()))
    plot = _plot(guests[_AT_ONCE[-1]], pods[_AT_ONCE[-1]])
    return Measured(
        figures=tuple(figures), notes=notes, plots=(plot,), table=_table(writes, ours, total)
    )


_NOTES: Final = (
    f"{_COUNT} of each, {_SPACING * 1000:.0f} ms apart, images present, one node that is the whole cluster; Running as a watch tells it."
    f" {_AT_ONCE[0]} at once: {_BATCHES} times, each deleted before the next come. The guests are machines without a disk: what they boot is"
    " measured elsewhere.",
    "All at once, what is created in 5 s keeps two cores busy for longer than that, pods as well as guests: each waits for those before"
    " it, and the difference is that of the CPU time of a guest's start (launcher, QEMU, network, two containers) and of a pause pod's.",
    "Writes are counted from creation until the instance is Ready, after Running: PUT and PATCH of instances as the API server counts"
    " them (refused ones, too; less those that a watch has seen of other namespaces' instances), and what qvirt writes into pods, which"
    " is a condition of their status that KubeVirt's count leaves out. The table has everybody's writes of that time.",
)


def _figures(
    at_once: int, guests: dict[int, list[float]], pods: dict[int, list[float]]
) -> Iterator[Figure]:
    for name, share, aim in (("P50", 0.5, 1.0), ("P95", 0.95, 3.0)):
        yield Figure(
            name=f"creation -> Running, {name}, {at_once} at once",
            unit="s",
            ours=(_quantile(guests[at_once], share),),
            baseline=(_quantile(pods[at_once], share),),
            baseline_name="a pause pod, creation -> Running",
            kind="difference",
            aim=aim,
        )


def _writes_figure(ours: Writes, total: int) -> Figure:
    return Figure(
        name="API writes for each VMI, creation -> Ready",
        unit="writes",
        ours=(round(ours.total() / total, 2),),
        baseline=(_KUBEVIRT_WRITES,),
        baseline_name="KubeVirt 1.8's benchmark",
        kind="value",
        aim=4.0,
    )


def _plot(guests: list[float], pods: list[float]) -> Plot:
    def curve(name: str, seconds: list[float]) -> Curve:
        points = tuple((float(n), round(s, 2)) for n, s in enumerate(seconds, start=1))
        return Curve(name=name, points=points)

    return Plot(
        title=f"Seconds from creation to Running, {_COUNT} created {_SPACING * 1000:.0f} ms apart",
        x="created before it",
        y="s",
        curves=(curve("guests", guests), curve("pause pods", pods)),
    )


def _table(writes: Writes, ours: Writes, total: int) -> tuple[tuple[str, ...], ...]:
    rows = [
        (verb, f"{resource}/{sub}".rstrip("/"), f"{count / total:.2f}", f"{mine / total:.2f}")
        for (verb, resource, sub), count in sorted(writes.items(), key=lambda item: -item[1])
        if count >= total / 4 and (mine := ours[verb, resource, sub]) >= 0
    ]
    return (("verb", "resource", "for each VMI", "of them counted as qvirt's"), *rows)


def _instance_writes(seen: Sequence[Seen], namespace: str, writes: Writes) -> Writes:
    """Of our instances: all that were counted, less those of others."""
    others = sum(
        one.type == "MODIFIED" and one.item["metadata"]["namespace"] != namespace for one in seen
    )
    found = Writes()
    for (verb, resource, sub), count in writes.items():
        if resource == "virtualmachineinstances" and verb in _CHANGES:
            found[verb, resource, sub] = max(0, count - others)
    return found


def _pod_writes(seen: Sequence[Seen]) -> int:
    """Changes of pods that are neither the scheduler's nor the kubelet's."""
    before: dict[str, Object] = {}
    changes = 0
    for one in seen:
        had = before.get(one.name)
        if had is not None and one.type == "MODIFIED":
            changes += _condition(had, _GATE) != _condition(one.item, _GATE)
            changes += any(
                had["metadata"].get(key) != one.item["metadata"].get(key)
                for key in ("labels", "annotations", "finalizers", "ownerReferences")
            )
        before[one.name] = one.item
    return changes


def _phase(seen: Seen) -> str:
    return str((seen.item.get("status") or {}).get("phase", ""))


def _condition(item: Object, kind: str) -> str | None:
    found = (item.get("status") or {}).get("conditions") or ()
    return next((c["status"] for c in found if c["type"] == kind), None)


def _quantile(samples: list[float], share: float) -> float:
    ordered = sorted(samples)
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 2)


def _named(at_once: int) -> list[list[str]]:
    names = [f"b{number}" for number in range(min(_COUNT, _BATCHES * at_once))]
    return [names[start : start + at_once] for start in range(0, len(names), at_once)]


async def _room(here: live.Live) -> int:
    """How many guests the node has room for."""
    (node, *_) = (await here.kube.get("/api/v1/nodes"))["items"]
    there = len((await here.kube.get("/api/v1/pods"))["items"])
    allocatable = node["status"]["allocatable"]
    room = (
        int(allocatable["pods"]) - there - _SPARE_PODS,
        (parse_bytes(allocatable["memory"]) - _SPARE_BYTES) // _POD_BYTES,
    )
    if min(room) < 1:
        raise BenchError(f"the node has no room: {there} pods, {allocatable}")
    return min(room)


async def _pause_image(here: live.Live) -> str:
    """The image that the node's kubelet runs its own pause containers from."""
    nodes = (await here.kube.get("/api/v1/nodes"))["items"]
    names = (n for node in nodes for image in node["status"]["images"] for n in image["names"])
    image = next((name for name in names if "pause" in name), None)
    if image is None:
        raise BenchError("the node has no pause image")
    return str(image)


def _instance(name: str) -> Object:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "domain": {
                "memory": {"guest": "32Mi"},
                "resources": {"requests": {"cpu": "10m"}},
                "devices": {"autoattachGraphicsDevice": False},
            },
        },
    }
