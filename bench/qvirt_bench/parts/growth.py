"""What virt-controller's work takes as there is more of it: changes of instances, and nodes."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from qvirt_bench.figures import Curve, Figure, Measured, Plot
from qvirt_bench.fleet import scene
from qvirt_bench.fleet.scene import Scene, spent
from qvirt_bench.fleet.site import make_nodes

_INSTANCES: Final = 100
_RATES: Final = (0, 25, 50, 100)
_SECONDS: Final = 8.0
#: Added to those that there are.
_NODES: Final = (0, 1000)
#: virt-controller looks at nodes once a minute, up to a fifth more.
_QUIET: Final = 72.0


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time in percent of a core, of virt-controller and of kube-apiserver, when there was so much of something."""

    x: float
    controller: float
    server: float


async def measure() -> Measured:
    """First changes, then nodes without any."""
    async with scene.running(_INSTANCES) as playing:
        await playing.vmis.up(0, _INSTANCES)
        await playing.rest()
        changes = [await _changing(playing, rate) for rate in _RATES]
        await playing.rest()
        nodes = [
            await _quiet(playing, before, count)
            for before, count in zip((0, *_NODES), _NODES, strict=False)
        ]
    return Measured(
        figures=(
            _figure(
                f"virt-controller's CPU time, {changes[-1].x:.0f} changes of instances a second",
                changes[-1],
            ),
            _figure(
                f"virt-controller's CPU time, {nodes[-1].x:.0f} nodes, nothing happens", nodes[-1]
            ),
        ),
        notes=(
            f"{_INSTANCES} running instances; a change is an annotation that nothing follows from: it is told, looked at, and left alone. "
            "Nodes are objects whose virt-handlers have been heard of; virt-controller looks at all of them once a minute.",
        ),
        plots=(
            _plot("Changes of instances", "changes a second", changes),
            _plot("Nodes, while nothing happens", "nodes", nodes),
        ),
    )


async def _changing(playing: Scene, rate: int) -> Point:
    begun, before, made = time.monotonic(), spent(), 0
    async with asyncio.TaskGroup() as group:
        while (now := time.monotonic() - begun) < _SECONDS:
            if made < now * rate:
                group.create_task(_change(playing, made))
                made += 1
            else:
                await asyncio.sleep(0.002)
    return _point(made / (time.monotonic() - begun), begun, before)


async def _change(playing: Scene, number: int) -> None:
    path = f"{scene.VMIS}/b{number % _INSTANCES}"
    await playing.api.patch(path, {"metadata": {"annotations": {"bench": str(number)}}})


async def _quiet(playing: Scene, before: int, count: int) -> Point:
    await make_nodes(playing.api, (f"more-{number}" for number in range(before, count)))
    await asyncio.sleep(2)
    begun, used = time.monotonic(), spent()
    await asyncio.sleep(_QUIET)
    return _point(playing.nodes + count, begun, used)


def _point(x: float, begun: float, before: scene.Spent) -> Point:
    used, milliseconds = spent() - before, (time.monotonic() - begun) * 1000
    return Point(
        x=round(x, 1),
        controller=round(100 * used["virt-controller"] / milliseconds, 2),
        server=round(100 * used["kube-apiserver"] / milliseconds, 2),
    )


def _figure(name: str, point: Point) -> Figure:
    return Figure(
        name=name,
        unit="% of a core",
        ours=(point.controller,),
        baseline=(point.server,),
        baseline_name="kube-apiserver at the same time",
        kind="ratio",
    )


def _plot(title: str, x: str, points: list[Point]) -> Plot:
    return Plot(
        title=title,
        x=x,
        y="% of a core",
        curves=(
            Curve(name="virt-controller", points=tuple((p.x, p.controller) for p in points)),
            Curve(name="kube-apiserver", points=tuple((p.x, p.server) for p in points)),
        ),
    )
