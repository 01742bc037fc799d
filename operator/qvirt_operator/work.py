"""A queue of keys to look at: each key at most once in the queue, and never with two workers at a time.

Level-triggered: an entry says "look", not what has happened. One that comes while its key is being worked on makes the
worker look once more. Failures come again, each time later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from qvirt_crds.errors import QvirtError
from qvirt_crds.model import Model
from qvirt_kube.errors import Conflict

_log = logging.getLogger(__name__)

Kind = Literal["vm", "vmi", "vmirs", "vmrs", "kv"]

FIRST_RETRY: Final = 0.1
LAST_RETRY: Final = 60.0
WORKERS: Final = 16


class Key(Model, frozen=True, kw_only=True):
    """One object."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


#: Looks at one object and acts; gives the seconds until it wants to look again, None: when something happens.
Reconcile = Callable[[Key], Awaitable[float | None]]


class WorkQueue:
    """:param workers: objects worked on at the same time."""

    def __init__(self, reconcile: Reconcile, workers: int = WORKERS) -> None:
        self._reconcile = reconcile
        self._workers = workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def nudge(self, key: Key) -> None:
        """Look at this object soon."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def later(self, key: Key, seconds: float) -> None:
        """Look at this object after a while; the sooner of two wishes counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._fire, key)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"worker-{number}")
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.nudge(key)

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._busy.add(key)
            try:
                await self._look(key)
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.nudge(key)

    async def _look(self, key: Key) -> None:
        try:
            again = await self._reconcile(key)
        except Conflict as error:
            _log.debug("%s: %s; looking again", key, error)
            self._retry(key)
        except QvirtError as error:
            _log.warning("%s: %s", key, error)
            self._retry(key)
        except Exception:  # noqa: BLE001 - one object's odd state must not stop all others
            _log.exception("%s: this is a bug in qvirt", key)
            self._retry(key)
        else:
            self._failures.pop(key, None)
            if again is not None:
                self.later(key, again)

    def _retry(self, key: Key) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self.later(key, min(FIRST_RETRY * 2 ** (failures - 1), LAST_RETRY))
