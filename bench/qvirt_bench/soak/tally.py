"""What was done, and what came of it. A failure while a component was down, or just after, is no failure of ours."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from qvirt_bench.errors import BenchError
from qvirt_kube.errors import KubeError
from qvirt_launcher.errors import LauncherError

#: What may go wrong with one visit; anything else is a mistake of this program.
TROUBLE = (BenchError, KubeError, LauncherError, OSError, TimeoutError, asyncio.IncompleteReadError)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """:param at: seconds since the beginning."""

    at: float
    what: str
    error: str


class Disturbance(msgspec.Struct, frozen=True, kw_only=True):
    """One restart: when, of what, and how long until all components were ready again."""

    at: float
    what: str
    seconds: float


class Tally:
    """:param settle: seconds after a restart in which failures are expected."""

    def __init__(self, settle: float = 30.0) -> None:
        self._settle = settle
        self.begun = time.monotonic()
        self.done: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.disturbances: list[Disturbance] = []
        self._disturbed: float | None = None
        self._calm_at = 0.0

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begun

    async def attempt(self, what: str, action: Callable[[], Awaitable[object]]) -> bool:
        """Do it and note how it went."""
        started = self.now
        try:
            await action()
        except TROUBLE as error:
            self.failed(what, error, started)
            return False
        self.done[what] += 1
        return True

    def failed(self, what: str, error: Exception, started: float) -> None:
        """Note it; expected if a component was being restarted in between."""
        if self._disturbed is not None or started < self._calm_at:
            self.expected[what] += 1
            return
        text = str(error) or type(error).__name__
        self.failures.append(Failure(at=round(self.now, 1), what=what, error=text))

    def disturbing(self, what: str) -> Disturbing:
        """For the time of a restart."""
        return Disturbing(self, what)

    def begin(self) -> None:
        """A component goes down."""
        self._disturbed = self.now

    def end(self, what: str) -> None:
        """All are ready."""
        assert self._disturbed is not None
        seconds = round(self.now - self._disturbed, 1)
        self.disturbances.append(
            Disturbance(at=round(self._disturbed, 1), what=what, seconds=seconds)
        )
        self._disturbed = None
        self._calm_at = self.now + self._settle


class Disturbing:
    """See `Tally.disturbing`."""

    def __init__(self, tally: Tally, what: str) -> None:
        self._tally = tally
        self._what = what

    def __enter__(self) -> None:
        self._tally.begin()

    def __exit__(self, *_: object) -> None:
        self._tally.end(self._what)
