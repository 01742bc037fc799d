"""Plots of a run (pure): each replica in a place of its own, restarts marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from qvirt_bench.figures import Curve, Plot
from qvirt_bench.smaps import MIB
from qvirt_bench.soak.samples import PartSeen, Sample
from qvirt_bench.soak.tally import Disturbance

_MINUTE = 60.0
Points = list[tuple[float, float]]


def plots(
    samples: Sequence[Sample], residents: Sequence[str], disturbances: Sequence[Disturbance]
) -> tuple[Plot, ...]:
    """For the page."""
    marks = tuple(round(one.at / _MINUTE, 2) for one in disturbances)

    def plot(title: str, y: str, curves: Iterator[Curve]) -> Plot:
        return Plot(title=title, x="minutes", y=y, curves=tuple(curves), marks=marks)

    return (
        plot(
            "Memory of our components (not shared)", "MiB", _parts(samples, lambda s: s.anon / MIB)
        ),
        plot("Descriptors of our components", "count", _parts(samples, lambda s: s.descriptors)),
        plot(
            "Memory of the residents' launchers (not shared)", "MiB", _residents(samples, residents)
        ),
        plot(
            "Launcher pods: memory beyond guest RAM, as a share of what was asked for it",
            "%",
            _shares(samples),
        ),
        plot("The node", "count", _node(samples)),
    )


def _parts(samples: Sequence[Sample], value: Callable[[PartSeen], float]) -> Iterator[Curve]:
    places: dict[str, str] = {}
    curves: dict[str, Points] = {}
    for sample in samples:
        here = {seen.life for seen in sample.parts}
        places = {place: life for place, life in places.items() if life in here}
        for seen in sample.parts:
            place = next((p for p, life in places.items() if life == seen.life), None)
            number = 1
            while place is None:
                wanted = f"{seen.part} {number}"
                place = wanted if wanted not in places else None
                number += 1
            places[place] = seen.life
            curves.setdefault(place, []).append((_minutes(sample), round(value(seen), 2)))
    for place in sorted(curves):
        yield Curve(name=place, points=tuple(curves[place]))


def _residents(samples: Sequence[Sample], residents: Sequence[str]) -> Iterator[Curve]:
    for name in residents:
        points = tuple(
            (_minutes(sample), round(seen.anon / MIB, 2))
            for sample in samples
            for seen in sample.launchers
            if seen.vmi == name
        )
        if points:
            yield Curve(name=name, points=points)


def _shares(samples: Sequence[Sample]) -> Iterator[Curve]:
    for name, pick in (("the highest pod", max), ("the lowest pod", min)):
        points = tuple(
            (_minutes(s), round(100 * pick(one.beyond / one.asked for one in s.launchers), 1))
            for s in samples
            if s.launchers
        )
        if points:
            yield Curve(name=name, points=points)


def _node(samples: Sequence[Sample]) -> Iterator[Curve]:
    for name in samples[0].node if samples else ():
        yield Curve(name=name, points=tuple((_minutes(s), float(s.node[name])) for s in samples))


def _minutes(sample: Sample) -> float:
    return round(sample.at / _MINUTE, 2)
