"""What a listener has not read yet: a bounded queue of events that knows which ones matter."""

from __future__ import annotations

import asyncio
from collections import deque

from qvirt_qmp.events import STATE, TERMINAL, Event


def _weight(event: Event) -> int:
    """How dearly an event is held: 2 says how the guest ended, 1 what it is doing, 0 is chatter."""
    if isinstance(event, TERMINAL):
        return 2
    return 1 if isinstance(event, STATE) else 0


class EventStream:
    """An async iterator over events, in their order, that ends when the connection has ended and all is read.

    It holds at most ``capacity`` events. A guest can make QEMU send as many as it likes, so a full stream gives up the oldest
    event of the least weight: chatter first (the balloon, the clock, ports), then what the machine was doing (a later state
    supersedes an earlier one), and an event that says how the guest ended only for another such event. `dropped` counts.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._held: deque[Event] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self.dropped = 0

    def put(self, event: Event) -> None:
        """Add an event; never blocks. Ignored once the stream has ended."""
        if self._ended:
            return
        self._held.append(event)
        if len(self._held) > self._capacity:
            self._give_one_up()
        self._news.set()

    def close(self) -> None:
        """No more events will come; those held can still be read."""
        self._ended = True
        self._news.set()

    @property
    def ended(self) -> bool:
        """Whether no more events will come."""
        return self._ended

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        while not self._held:
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._held.popleft()

    def _give_one_up(self) -> None:
        # min() takes the first of equals, i.e. the oldest.
        del self._held[min(range(len(self._held)), key=lambda at: _weight(self._held[at]))]
        self.dropped += 1
