"""An API server of a few lines: objects by path, creation that finds a name taken, resourceVersions that grow old."""

from __future__ import annotations

import asyncio
import copy
import itertools
from typing import Any, cast

from qvirt_kube.client import Kube
from qvirt_kube.errors import Conflict, NotFound

Object = dict[str, Any]


class FakeKube:
    """What `Keeper` uses of a connection. Every call lets others run first."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[str] = []
        self._versions = itertools.count(1)

    def as_kube(self) -> Kube:
        return cast(Kube, self)

    async def get(self, path: str) -> Object:
        await asyncio.sleep(0)
        if path not in self.objects:
            raise NotFound(f"GET {path}", 404, "")
        return copy.deepcopy(self.objects[path])

    async def create(self, path: str, body: Object) -> Object:
        await asyncio.sleep(0)
        where = f"{path}/{body['metadata']['name']}"
        if where in self.objects:
            raise Conflict(f"POST {path}", 409, "already exists")
        return self.put(where, body)

    async def replace(self, path: str, body: Object) -> Object:
        await asyncio.sleep(0)
        held = await self.get(path)
        if held["metadata"]["resourceVersion"] != body["metadata"].get("resourceVersion"):
            raise Conflict(f"PUT {path}", 409, "the object has been modified")
        return self.put(path, body)

    def put(self, path: str, body: Object) -> Object:
        """Store, whatever there was."""
        metadata = {**body["metadata"], "resourceVersion": str(next(self._versions))}
        self.objects[path] = copy.deepcopy({**body, "metadata": metadata})
        self.writes.append(path)
        return copy.deepcopy(self.objects[path])
