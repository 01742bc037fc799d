"""How long to wait before another try."""

from __future__ import annotations


class Backoff:
    """Doubles from ``first`` to ``last`` seconds, until `reset`."""

    def __init__(self, first: float, last: float) -> None:
        self._first = first
        self._last = last
        self._next = first

    def next(self) -> float:
        """Seconds to wait now."""
        seconds, self._next = self._next, min(self._next * 2, self._last)
        return seconds

    def reset(self) -> None:
        """It worked."""
        self._next = self._first
