"""Many objects of a kind, and how fast they come up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from qvirt_bench.errors import BenchError
from qvirt_bench.fleet.api import Api, Object

#: More of them would wait for each other: the API server has no more processors.
_CREATORS: Final = 8
_DEADLINE: Final = 3600.0
_ONE_DEADLINE: Final = 600.0


class Crowd:
    """Objects of a kind that are created as fast as the API server takes them.

    :param prefix: of their names.
    """

    def __init__(
        self, api: Api, path: str, make: Callable[[str], Object], prefix: str = "b"
    ) -> None:
        self._api = api
        self._path = path
        self._make = make
        self._prefix = prefix
        self._up: set[str] = set()
        self._wanted = 0
        self._reached = asyncio.Event()

    def came_up(self, item: Object) -> None:
        """One is as it ought to be; again is fine."""
        self._up.add(item["metadata"]["name"])
        if len(self._up) >= self._wanted:
            self._reached.set()

    async def up(self, first: int, last: int) -> float:
        """Create those with these numbers; how many came up in a second.

        :raise BenchError: not all do.
        """
        self._wanted = last
        self._reached.clear()
        numbers = iter(range(first, last))

        async def create() -> None:
            for number in numbers:
                await self._api.create(self._path, self._make(f"{self._prefix}{number}"))

        begun = time.monotonic()
        try:
            async with asyncio.timeout(_DEADLINE), asyncio.TaskGroup() as group:
                for _ in range(_CREATORS):
                    group.create_task(create())
                group.create_task(self._reached.wait())
        except TimeoutError as error:
            raise BenchError(f"{len(self._up)} of {last} came up: {self._path}") from error
        return (last - first) / (time.monotonic() - begun)

    async def one(self, name: str) -> float:
        """When one more was up."""
        self._wanted = len(self._up) + 1
        self._reached.clear()
        await self._api.create(self._path, self._make(name))
        async with asyncio.timeout(_ONE_DEADLINE):
            await self._reached.wait()
        return time.monotonic()
