"""Those who play the nodes: they see everything, even when the API server hangs up on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from qvirt_bench.fleet.api import Api, Object
from qvirt_bench.fleet.player import Player


def thing(name: str) -> Object:
    return {"metadata": {"name": name, "uid": name}}


class HangsUp(Api):
    """An API server that has one more thing at each list, and ends the first watch at once."""

    def __init__(self) -> None:
        self.lists = 0

    async def get(self, path: str, **_: str) -> Object:
        assert path == "/things"
        self.lists += 1
        items = [thing(f"listed-{number}") for number in range(self.lists)]
        return {
            "apiVersion": "v1",
            "kind": "ThingList",
            "metadata": {"resourceVersion": "1"},
            "items": items,
        }

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Object]]:
        assert (path, version) == ("/things", "1")
        if self.lists > 1:
            yield "ADDED", thing("watched")
            await asyncio.Event().wait()


async def test_a_watch_that_ends_is_begun_anew() -> None:
    seen: dict[str, Object] = {}
    all_seen = asyncio.Event()

    async def step(item: Object) -> None:
        seen[item["metadata"]["name"]] = item
        if len(seen) == 3:
            all_seen.set()

    playing = asyncio.create_task(Player(HangsUp(), "/things", step).play())
    async with asyncio.timeout(10):
        await all_seen.wait()
    playing.cancel()
    await asyncio.wait([playing])
    assert set(seen) == {"listed-0", "listed-1", "watched"}
    # A list's items don't say what they are; Events about them do.
    assert seen["listed-0"]["kind"] == "Thing"
