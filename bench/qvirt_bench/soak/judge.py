"""From samples to series, and from each series to a verdict (pure).

Judged are level moments alone (see `samples.Sample`), in which the same is under way as at every other one. Of the samples of
one moment the least counts: what a probe holds for a moment is no leak.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from qvirt_bench.smaps import MIB
from qvirt_bench.soak.samples import PARTS, LauncherSeen, PartSeen, Sample
from qvirt_bench.soak.trend import Trend, Verdict, trend, verdict

#: Of memory: MiB an hour, or a share of the whole an hour, whichever is more. Of counts: one an hour.
MEMORY_LIMIT: Final = 1.0
MEMORY_SHARE: Final = 0.02
COUNT_LIMIT: Final = 1.0
#: Between samples of one level moment.
_MOMENT_SECONDS: Final = 8.0

#: (seconds, life, value)
Entry = tuple[float, str, float]


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One series. ``first`` and ``last`` are medians of its first and last quarter."""

    name: str
    unit: str
    first: float
    last: float
    limit: float
    trend: Trend | None
    verdict: Verdict


def judge(samples: Sequence[Sample], residents: Iterable[str], warm_up: float) -> list[Judged]:
    """All series."""
    found: list[Judged] = []
    level = [sample for sample in samples if sample.level]
    births = _births(samples)

    def add(name: str, unit: str, entries: Iterable[Entry]) -> None:
        made = _judged(name, unit, list(entries), births, warm_up)
        if made is not None:
            found.append(made)

    for part in PARTS:
        for what, unit, value in _PART_SERIES:
            add(f"{part}: {what}", unit, _of_part(level, part, value))
    for name in residents:
        for what, unit, of_launcher in _LAUNCHER_SERIES:
            add(f"{name}: {what}", unit, _of_launcher(level, name, of_launcher))
    for what in level[0].node if level else ():
        add(f"node: {what}", "", ((s.at, "", float(s.node[what])) for s in level))
    return found


_PART_SERIES: Final[tuple[tuple[str, str, Callable[[PartSeen], float]], ...]] = (
    ("memory of its own", "MiB", lambda seen: seen.anon / MIB),
    ("descriptors", "", lambda seen: seen.descriptors),
    ("threads", "", lambda seen: seen.threads),
    ("processes", "", lambda seen: seen.processes),
)
_LAUNCHER_SERIES: Final[tuple[tuple[str, str, Callable[[LauncherSeen], float]], ...]] = (
    ("launcher's memory of its own", "MiB", lambda seen: seen.anon / MIB),
    ("launcher's descriptors", "", lambda seen: seen.descriptors),
    ("QEMU's memory but RAM and translated code", "MiB", lambda seen: seen.qemu_anon / MIB),
    ("QEMU's descriptors", "", lambda seen: seen.qemu_descriptors),
)


def _of_part(
    samples: Iterable[Sample], part: str, value: Callable[[PartSeen], float]
) -> Iterator[Entry]:
    for sample in samples:
        for seen in sample.parts:
            if seen.part == part:
                yield sample.at, seen.life, value(seen)


def _of_launcher(
    samples: Iterable[Sample], name: str, value: Callable[[LauncherSeen], float]
) -> Iterator[Entry]:
    for sample in samples:
        for seen in sample.launchers:
            if seen.vmi == name:
                yield sample.at, seen.pod, value(seen)


def _births(samples: Iterable[Sample]) -> dict[str, float]:
    """When each life was first seen."""
    births: dict[str, float] = {}
    for sample in samples:
        for part in sample.parts:
            births.setdefault(part.life, sample.at)
        for launcher in sample.launchers:
            births.setdefault(launcher.pod, sample.at)
    return births


def _judged(
    name: str, unit: str, entries: list[Entry], births: dict[str, float], warm_up: float
) -> Judged | None:
    lives: dict[str, list[tuple[float, float]]] = {}
    for at, life, value in entries:
        if at - births.get(life, 0.0) < warm_up:
            continue
        points = lives.setdefault(life, [])
        if points and at - points[-1][0] < _MOMENT_SECONDS:
            points[-1] = points[-1][0], min(points[-1][1], value)
        else:
            points.append((at, value))
    points = sorted(point for life in lives.values() for point in life)
    if not points:
        return None
    values = [value for _, value in points]
    quarter = max(1, len(values) // 4)
    limit = COUNT_LIMIT
    if unit == "MiB":
        limit = max(MEMORY_LIMIT, MEMORY_SHARE * statistics.median(values))
    found = trend(lives.values())
    return Judged(
        name=name,
        unit=unit,
        first=statistics.median(values[:quarter]),
        last=statistics.median(values[-quarter:]),
        limit=limit,
        trend=found,
        verdict=verdict(found, limit),
    )


class Overhead(msgspec.Struct, frozen=True, kw_only=True):
    """The launcher pod that came nearest to what was asked for it, of all samples. MiB."""

    vmi: str
    at: float
    beyond: float
    asked: float
    pods: int
    median_share: float

    @property
    def exceeded(self) -> bool:
        """Whether more was taken than asked for."""
        return self.beyond > self.asked


def overhead(samples: Iterable[Sample]) -> Overhead | None:
    """None: no launcher was seen."""
    seen = [(sample.at, one) for sample in samples for one in sample.launchers]
    if not seen:
        return None
    at, worst = max(seen, key=lambda entry: entry[1].beyond / entry[1].asked)
    return Overhead(
        vmi=worst.vmi,
        at=at,
        beyond=round(worst.beyond / MIB, 1),
        asked=round(worst.asked / MIB, 1),
        pods=len({one.pod for _, one in seen}),
        median_share=round(statistics.median(one.beyond / one.asked for _, one in seen), 3),
    )
