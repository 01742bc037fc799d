"""Whether a series grows: Theil-Sen's slope with its confidence bounds, over pairs of points of the same life (pure).

A process that was restarted is another one: its first value says nothing about the last of the one before. So slopes are taken
within lives, and pooled, as in the seasonal Kendall test (Hirsch, Slack, Smith 1982); the bounds are Sen's (1968).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

#: Seconds, value.
Points = Sequence[tuple[float, float]]
Verdict = Literal["flat", "grows", "unclear", "too short"]

_HOUR: Final = 3600.0
#: One-sided 95 %.
_Z: Final = 1.645
#: Fewer can't be told from noise.
_FEWEST: Final = 6


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """Units per hour; between the bounds with 90 %."""

    slope: float
    low: float
    high: float
    points: int
    lives: int


def trend(lives: Iterable[Points]) -> Trend | None:
    """None: too few points for any."""
    used = [points for points in lives if len(points) > 1]
    count = sum(map(len, used))
    slopes = sorted(_slopes(used))
    if count < _FEWEST or not slopes:
        return None
    reach = _Z * math.sqrt(sum(map(_variance, used)))
    last = len(slopes) - 1
    # Outside of the slopes that there are, the bound is unknown; the outermost is the nearest that can be said.
    low = slopes[max(0, math.floor((len(slopes) - reach) / 2))]
    high = slopes[min(last, math.ceil((len(slopes) + reach) / 2))]
    return Trend(slope=statistics.median(slopes), low=low, high=high, points=count, lives=len(used))


def verdict(found: Trend | None, limit: float) -> Verdict:
    """``grows``: even the lower bound is above the limit. ``unclear``: the slope is, and noise may be why."""
    if found is None:
        return "too short"
    if found.low > limit:
        return "grows"
    return "unclear" if found.slope > limit else "flat"


def _slopes(lives: Iterable[Points]) -> Iterable[float]:
    for points in lives:
        for number, (x, y) in enumerate(points):
            for later, value in points[number + 1 :]:
                if later > x:
                    yield (value - y) / (later - x) * _HOUR


def _variance(points: Points) -> float:
    """Of Kendall's S, with its correction for equal values."""
    n = len(points)
    ties = Counter(value for _, value in points).values()
    return (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
