"""What a listener has not read yet: a bounded queue of events that knows which ones matter."""

from __future__ import annotations

import asyncio
from collections import deque

from qvirt_qmp.events import STATE, TERMINAL, Event


class EventStream:
    """An async iterator over events, in their order, that ends when the connection has ended and all is read.

    It holds at most ``capacity`` events. A guest can make QEMU send as many as it likes, so a full stream gives up the oldest
    event of the least weight: chatter first (the balloon, the clock, ports), then what the machine was doing (a later state
    supersedes an earlier one), and an event that says how the guest ended only for another such event. `dropped` counts.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        # One queue for each weight, with places in the order of all: giving one up must be quick, since it happens in a flood.
        self._held: tuple[deque[tuple[int, Event]], ...] = (deque(), deque(), deque())
        self._count = 0
        self._news = asyncio.Event()
        self._ended = False
        self.dropped = 0

    @property
    def ended(self) -> bool:
        """Whether no more events will come."""
        return self._ended

    def put(self, event: Event) -> None:
        """Add an event; never blocks. Ignored once the stream has ended."""
        if self._ended:
            return
        self._count += 1
        self._held[_weight(event)].append((self._count, event))
        if sum(map(len, self._held)) > self._capacity:
            next(filter(None, self._held)).popleft()
            self.dropped += 1
        self._news.set()

    def close(self) -> None:
        """No more events will come; those held can still be read."""
        self._ended = True
        self._news.set()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        while not any(self._held):
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return min(filter(None, self._held), key=lambda queue: queue[0][0]).popleft()[1]


def _weight(event: Event) -> int:
    """How dearly an event is held: 2 says how the guest ended, 1 what it is doing, 0 is chatter."""
    if isinstance(event, TERMINAL):
        return 2
    return 1 if isinstance(event, STATE) else 0
