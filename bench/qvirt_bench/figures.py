"""What a measurement yields: figures, each with a named baseline of the same run, an aim, and all its samples."""

from __future__ import annotations

import statistics
from typing import Literal

import msgspec

#: How ours is held against the baseline: divided by it, what it has more, or against the aim alone (the baseline is context).
Kind = Literal["ratio", "difference", "value"]


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Of the machine, during the run."""

    cpus: int
    memory_gib: float
    #: Processors that others kept busy right before. Above a quarter of them, times are provisional.
    at_work: float
    accelerator: str
    kernel: str
    qemu: str = ""

    @property
    def busy(self) -> bool:
        """Whether others were at work before we began."""
        return self.at_work > self.cpus / 4


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. Samples of ours and of the baseline were taken in turns."""

    name: str
    unit: str
    ours: tuple[float, ...]
    baseline: tuple[float, ...]
    baseline_name: str
    kind: Kind
    #: Of the ratio, difference or value; None: nothing was promised.
    aim: float | None = None
    better: Literal["less", "more"] = "less"

    @property
    def verdict(self) -> float:
        """What is held against the aim."""
        ours, base = statistics.median(self.ours), statistics.median(self.baseline)
        match self.kind:
            case "ratio":
                return ours / base if base else float("inf")
            case "difference":
                return ours - base
            case "value":
                return ours

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        if self.aim is None:
            return None
        return self.verdict <= self.aim if self.better == "less" else self.verdict >= self.aim


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """How something grows as the work does: points of one series."""

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def slope(self) -> float:
        """Of the straight line through the points (least squares), in y's unit for each x."""
        xs, ys = zip(*self.points, strict=True)
        return statistics.linear_regression(xs, ys).slope if len(self.points) > 1 else 0.0


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """Curves on common axes."""

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    #: Of x, where something happened.
    marks: tuple[float, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One part's run."""

    part: str
    title: str
    date: str
    #: How long it took.
    seconds: float
    #: That was asked for (SIZE=...) in place of the part's own; 0: none.
    size: int = 0
    conditions: Conditions
    figures: tuple[Figure, ...]
    #: How it was measured, and what explains an aim that is missed; a sentence or more each.
    notes: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    #: More rows to show, with their header first.
    table: tuple[tuple[str, ...], ...] = ()


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a part hands back; the runner adds the rest of a `Result`."""

    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    size: int = 0


def spread(samples: tuple[float, ...]) -> str:
    """Median and range, e.g. ``12.1 (11.8-13.0, n=5)``."""
    middle = f"{statistics.median(samples):.4g}"
    if len(samples) == 1:
        return middle
    return f"{middle} ({min(samples):.4g}-{max(samples):.4g}, n={len(samples)})"
