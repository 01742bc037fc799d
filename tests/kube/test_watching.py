"""A watch that tells nothing, ends, or has missed something: the API server's list has the last word."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from qvirt_kube import watching as door
from qvirt_kube.client import Kube
from qvirt_kube.errors import NotFound, Unavailable
from qvirt_kube.mirror import Listed
from qvirt_kube.watching import Interest, watching

Object = dict[str, Any]
PODS = Interest(plural="pods", label="a=b")


def pod(name: str, version: int, **labels: str) -> Object:
    meta = {
        "name": name,
        "namespace": "n",
        "uid": f"uid of {name}",
        "resourceVersion": str(version),
        "labels": labels or {"a": "b"},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta}


class Server(Kube):
    """Lists and gets what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.pods: dict[str, Object] = {}
        self.away = 0

    async def list_versions(self, path: str, **query: str) -> tuple[Listed, ...]:
        assert path == "/api/v1/pods"
        assert query == {"resourceVersion": "0", "labelSelector": "a=b"}
        if self.away:
            self.away -= 1
            raise Unavailable(path, 503, "starting")
        found = (pod["metadata"] for pod in self.pods.values())
        fitting = [meta for meta in found if meta["labels"] == {"a": "b"}]
        return tuple(msgspec.convert(meta, Listed) for meta in fitting)

    async def get(self, path: str, **_: str) -> Object:
        name = path.removeprefix("/api/v1/namespaces/n/pods/")
        if name not in self.pods:
            raise NotFound(path, 404, "gone")
        return self.pods[name]


class Watches:
    """What runs in kopf's place."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.starts = 0
        self.blind = False
        self.broken = 0
        #: The next version of y that it tells, each time it looks; 0: it has nothing to tell.
        self.newest = 0

    async def run(self, thread: Any, stop: threading.Event) -> None:
        self.starts += 1
        if self.broken:
            self.broken -= 1
            raise PermissionError("401")
        (watch,) = thread._watches
        handler = thread._handler(watch, stop)
        for item in () if self.blind else list(self._server.pods.values()):
            await handler(type=None, body=item)
        while not stop.is_set():
            if self.newest:
                await handler(type=None, body=pod("y", self.newest))
                self._server.pods["y"] = pod("y", self.newest)
                self.newest += 1
            await asyncio.sleep(0.01)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def watches(server: Server, monkeypatch: pytest.MonkeyPatch) -> Watches:
    watches = Watches(server)

    async def run(thread: Any, stop: threading.Event) -> None:
        await watches.run(thread, stop)

    monkeypatch.setattr(door._Thread, "_operator", run)
    monkeypatch.setattr(door, "LATE", 0.05)
    monkeypatch.setattr(door, "_AGAIN", 0.05)
    return watches


class Told:
    def __init__(self) -> None:
        self.all: list[tuple[str, str, bool]] = []

    def __call__(self, item: Object, gone: bool) -> None:
        meta = item["metadata"]
        self.all.append((meta["name"], meta["resourceVersion"], gone))

    async def until(self, *what: tuple[str, str, bool]) -> None:
        await until(lambda: _true(set(what) <= set(self.all)))


async def _true(value: bool) -> bool:
    return value


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.01)


async def test_what_is_there_is_told(server: Server, watches: Watches) -> None:
    server.pods["x"] = pod("x", 1)
    told = Told()
    async with watching(server, (PODS,), told, period=0.1):
        await told.until(("x", "1", False))
        await asyncio.sleep(0.5)
    assert told.all == [("x", "1", False)]
    assert watches.starts == 1


async def test_an_end_that_nobody_told(server: Server, watches: Watches) -> None:
    server.pods |= {"x": pod("x", 1), "y": pod("y", 1), "z": pod("z", 1)}
    told = Told()
    async with watching(server, (PODS,), told, period=0.1):
        await told.until(("x", "1", False), ("y", "1", False))
        del server.pods["x"]
        # Another of that name, and one that is no longer among those that are watched.
        server.pods["y"] = pod("y", 9) | {"metadata": pod("y", 9)["metadata"] | {"uid": "other"}}
        server.pods["z"] = pod("z", 3, a="c")
        await told.until(("x", "1", True), ("y", "1", True), ("y", "9", False), ("z", "1", True))


async def test_a_watch_that_tells_nothing_is_started_anew(server: Server, watches: Watches) -> None:
    watches.blind = True
    server.pods["x"] = pod("x", 1)
    told = Told()
    async with watching(server, (PODS,), told, period=0.1):
        await told.until(("x", "1", False))
        watches.blind = False
        await until(lambda: _true(watches.starts >= 2))
        server.pods["x"] = pod("x", 2)
        await told.until(("x", "2", False))


@asynccontextmanager
async def told_of_x_and_y(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Told]:
    """A watch that has told both, and is given time to tell more."""
    monkeypatch.setattr(door, "LATE", 0.5)
    server.pods |= {"x": pod("x", 1), "y": pod("y", 1)}
    told = Told()
    async with watching(server, (PODS,), told, period=0.1):
        await told.until(("x", "1", False), ("y", "1", False))
        yield told


async def test_a_watch_that_is_behind_is_left_alone(
    server: Server, watches: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with told_of_x_and_y(server, monkeypatch) as told:
        watches.newest = 2
        server.pods["x"] = pod("x", 1_000_000)
        # By itself, the second time that it is looked for.
        await told.until(("x", "1000000", False))
        assert watches.starts == 1


async def test_a_watch_that_has_left_something_out_is_started_anew(
    server: Server, watches: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with told_of_x_and_y(server, monkeypatch) as told:
        server.pods["x"] = pod("x", 5)
        watches.newest = 10
        await told.until(("x", "5", False))
        await until(lambda: _true(watches.starts >= 2))


async def test_a_watch_that_ends_is_started_anew(
    server: Server, watches: Watches, caplog: pytest.LogCaptureFixture
) -> None:
    watches.broken = 2
    server.pods["x"] = pod("x", 1)
    told = Told()
    async with watching(server, (PODS,), told, period=60):
        await told.until(("x", "1", False))
    assert watches.starts == 3
    assert "the watch has ended: PermissionError: 401" in caplog.text


async def test_an_api_server_that_is_away(server: Server, watches: Watches) -> None:
    server.pods["x"] = pod("x", 1)
    told = Told()
    async with watching(server, (PODS,), told, period=0.05):
        await told.until(("x", "1", False))
        server.away = 3
        del server.pods["x"]
        await told.until(("x", "1", True))


async def test_nothing_is_told_after_the_end(server: Server, watches: Watches) -> None:
    told = Told()
    async with watching(server, (PODS,), told, period=0.05):
        pass
    server.pods["x"] = pod("x", 1)
    await asyncio.sleep(0.3)
    assert told.all == []
