"""Somebody who watches objects of a kind and writes about each, step by step, as a component of a node does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from qvirt_bench.fleet.api import Api, Object, Stale

#: Looks at an object and takes at most one step.
Step = Callable[[Object], Awaitable[None]]


class Player:
    """Level-triggered: each object's newest version is looked at; a few at a time.

    :param path: of the collection.
    """

    def __init__(self, api: Api, path: str, step: Step, workers: int = 8) -> None:
        self._api = api
        self._path = path
        self._step = step
        self._workers = workers
        self._newest: dict[str, Object] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    async def play(self) -> None:
        """Until cancelled.

        :raise BenchError: the API server does not take a step.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look())
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _look(self) -> None:
        # The API server ends a watch whose reader is late, as one is on a busy machine.
        while True:
            listed = await self._api.get(self._path)
            kinds = {
                "apiVersion": listed["apiVersion"],
                "kind": listed["kind"].removesuffix("List"),
            }
            for item in listed["items"]:
                self.show({**item, **kinds})
            await self._watch(listed["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> None:
        async for kind, item in self._api.watch(self._path, version):
            uid = item["metadata"]["uid"]
            if kind == "DELETED":
                self._newest.pop(uid, None)
            elif kind in ("ADDED", "MODIFIED"):
                self.show(item)

    def show(self, item: Object) -> None:
        """Have an object looked at."""
        uid = item["metadata"]["uid"]
        if uid not in self._newest:
            self._queue.put_nowait(uid)
        self._newest[uid] = item

    async def _work(self) -> None:
        while True:
            item = self._newest.pop(await self._queue.get(), None)
            if item is not None:
                try:
                    await self._step(item)
                except Stale:
                    continue  # the version that made it so is on its way to us


def event(about: Object, component: str, reason: str, message: str) -> Object:
    """An Event as Kubernetes' components write them."""
    meta = about["metadata"]
    stamp = "2026-01-01T00:00:00Z"
    return {
        "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
        },
        "type": "Normal",
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
