"""virt-controller with many instances on simulated nodes, in turns with as many bare pods on the same nodes.

And with as many pods like those of the instances, which nobody but Kubernetes has to do with: what is left of the aim when
the instances and their controller cost nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from qvirt_bench.figures import Curve, Figure, Measured, Plot
from qvirt_bench.fleet.api import Writes
from qvirt_bench.fleet.scene import Spent, running, spent

#: Instances in all. 10,000 take more time than this part has among the others (at the rates of its chapter): asked for by name.
_ASKED: Final = int(os.environ.get("QVIRT_BENCH_SIZE", "0"))
_SIZE: Final = _ASKED or 2000
#: Shares of them at which a look is taken.
_STAGES: Final = (0.1, 0.25, 0.5, 1.0)
_KIB: Final = 1024


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen when so many instances, and so many bare pods, were there."""

    count: int
    #: Of those of this stage.
    vmis_per_second: float
    pods_per_second: float
    launchers_per_second: float
    pss: int


async def measure() -> Measured:
    """Stages: bare pods, pods like those of instances, instances; then a restart."""
    async with running(3 * _SIZE) as scene:
        empty = scene.controller.pss
        stages, writes, done = [], Writes(), 0
        for_pods, for_launchers, for_vmis = Spent(), Spent(), Spent()
        for share in _STAGES:
            count = max(round(_SIZE * share), done + 1)
            begun = spent()
            pods = await scene.pods.up(done, count)
            with_pods = spent()
            for_pods += with_pods - begun
            launchers = await scene.launchers.up(done, count)
            before, with_launchers = await scene.api.writes(), spent()
            for_launchers += with_launchers - with_pods
            vmis = await scene.vmis.up(done, count)
            for_vmis += spent() - with_launchers
            await scene.rest()
            writes += await scene.api.writes() - before
            stage = Stage(
                count=count,
                vmis_per_second=vmis,
                pods_per_second=pods,
                launchers_per_second=launchers,
                pss=scene.controller.pss,
            )
            print(f"   {stage}", flush=True)
            stages.append(stage)
            done = count
        level = await scene.restart()
        again = scene.controller.pss
    spent_for = (for_pods, for_launchers, for_vmis)
    shares = tuple({who: ms / done for who, ms in each.items()} for each in spent_for)
    return _measured(empty, stages, writes, level, again, shares)


def _measured(
    empty: int,
    stages: list[Stage],
    writes: Writes,
    level: float,
    again: int,
    shares: tuple[Mapping[str, float], ...],
) -> Measured:
    last = stages[-1]
    each = (last.pss - empty) / last.count / _KIB
    figures = (
        Figure(
            name=f"{last.count} instances reaching Running, as they come",
            unit="/s",
            ours=tuple(round(stage.vmis_per_second, 1) for stage in stages),
            baseline=tuple(round(stage.pods_per_second, 1) for stage in stages),
            baseline_name="bare pods becoming ready, on the same nodes",
            kind="ratio",
            aim=0.5,
            better="more",
        ),
        Figure(
            name="the same, held against the pods that they need",
            unit="/s",
            ours=tuple(round(stage.vmis_per_second, 1) for stage in stages),
            baseline=tuple(round(stage.launchers_per_second, 1) for stage in stages),
            baseline_name="their pods alone becoming ready, with no instances",
            kind="ratio",
            better="more",
        ),
        Figure(
            name=f"virt-controller's memory for each of {last.count} instances",
            unit="KiB",
            ours=(round(each, 1),),
            baseline=(round(empty / _KIB),),
            baseline_name="itself without instances",
            kind="value",
            aim=40.0,
        ),
        Figure(
            name=f"virt-controller from SIGTERM to level with {last.count} instances",
            unit="s",
            ours=(round(level, 1),),
            baseline=(round(again / _KIB / _KIB),),
            baseline_name="MiB that it has then",
            kind="value",
            aim=60.0,
        ),
    )
    rows = [
        (verb, f"{resource}/{sub}".rstrip("/"), f"{count / last.count:.2f}")
        for (verb, resource, sub), count in sorted(writes.items(), key=lambda item: -item[1])
        if count >= last.count / 20
    ]
    return Measured(
        figures=figures,
        notes=(*_NOTES, _where(shares)),
        plots=_plots(empty, stages),
        table=(("verb", "resource", "API writes for each instance"), *rows),
        size=_ASKED,
    )


_NOTES: Final = (
    "etcd, kube-apiserver, virt-controller and those who play the nodes share this machine; nothing but virt-controller's own rights "
    "and flags is ours. Instances come as virt-api's webhooks leave them; the webhooks' own time is not in this. The players write what scheduler, kubelet and virt-handler write for a pod that comes up, with their Events "
    "(`bench/qvirt_bench/fleet`); guests run the moment they are handed over.",
    "Rates are of one stage of the growth each; so are the samples of all sides, in turns. An instance needs a pod of three containers: the "
    "rate of such pods alone, which nobody but Kubernetes has to do with, is the most that any controller could reach.",
    "Level: an instance that was made while virt-controller was away runs, and virt-controller uses less than 5 % of a core.",
    f"Size: {_SIZE} (`make bench PART=scale-controller SIZE=10000` for another).",
)


def _where(shares: tuple[Mapping[str, float], ...]) -> str:
    """Where the time goes, of which there is as much as the machine has CPUs."""
    pods, launchers, vmis = shares
    told = [
        f"{who} {ours:.1f} ({launchers.get(who, 0):.1f}, {pods.get(who, 0):.1f})"
        for who, ours in sorted(vmis.items(), key=lambda item: -item[1])
    ]
    return f"CPU time for each instance (for each of their pods alone, for each bare pod), in ms: {', '.join(told)}."


def _plots(empty: int, stages: list[Stage]) -> tuple[Plot, ...]:
    def curve(name: str, value: Callable[[Stage], float]) -> Curve:
        return Curve(name=name, points=tuple((s.count, round(value(s), 2)) for s in stages))

    memory = curve("virt-controller", lambda s: s.pss / _KIB / _KIB)
    memory = msgspec.structs.replace(
        memory, points=((0.0, round(empty / _KIB / _KIB, 2)), *memory.points)
    )
    return (
        Plot(
            title="Coming up, by what is there already",
            x="objects",
            y="/s",
            curves=(
                curve("instances", lambda s: s.vmis_per_second),
                curve("their pods alone", lambda s: s.launchers_per_second),
                curve("bare pods", lambda s: s.pods_per_second),
            ),
        ),
        Plot(title="virt-controller's PSS", x="instances", y="MiB", curves=(memory,)),
    )
