"""A client of the API server that costs little, for those who play a part: what is measured is not it."""

from __future__ import annotations

import json
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import aiohttp
import msgspec

from qvirt_bench.errors import BenchError

Object = dict[str, Any]
#: Requests that changed something, by verb, resource and subresource.
Writes = Counter[tuple[str, str, str]]

_SECONDS: Final = 60.0
_LONGEST_CHUNK: Final = 1 << 20
#: The version is too old to go on from.
_GONE: Final = 410
_PATCHES: Final = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}
_REQUEST: Final = re.compile(r"^apiserver_request_total\{(.*)\} ([0-9.e+]+)$", re.M)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


class Stale(Exception):
    """Somebody wrote the object in between (409)."""


class Api:
    """:param kubeconfig: with a token, as `qvirt_cluster.control_plane` writes it."""

    def __init__(self, kubeconfig: str) -> None:
        document = json.loads(Path(kubeconfig).read_text())
        cluster = document["clusters"][0]["cluster"]
        self._server = cluster["server"]
        self._token = document["users"][0]["user"]["token"]
        self._tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Api:
        self._session = aiohttp.ClientSession(
            base_url=self._server,
            headers={"Authorization": f"Bearer {self._token}"},
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_SECONDS),
        )
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, path: str, **query: str) -> Object:
        """:raise BenchError: any answer but yes; holds for all verbs."""
        return msgspec.json.decode(await self._call("GET", path, query=query), type=Object)

    async def create(self, path: str, body: Object) -> None:
        """POST to a collection."""
        await self._call("POST", path, body)

    async def patch(
        self, path: str, body: Object, kind: Literal["merge", "strategic"] = "merge"
    ) -> None:
        """:raise Stale: it was changed since the version in the body."""
        await self._call("PATCH", path, body, _PATCHES[kind])

    async def delete(self, path: str) -> None:
        """At once."""
        await self._call("DELETE", path, {"gracePeriodSeconds": 0})

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Object]]:
        """Type and object of each change since a version, until the API server ends it: the caller lists again, and goes on from there."""
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "3600"}
        assert self._session is not None
        async with self._session.get(path, params=query) as response:
            left = b""
            async for chunk in response.content.iter_chunked(_LONGEST_CHUNK):
                *lines, left = (left + chunk).split(b"\n")
                for line in lines:
                    found = msgspec.json.decode(line, type=Object)
                    if found["type"] == "ERROR":
                        if found["object"].get("code") == _GONE:
                            return
                        raise BenchError(f"watching {path}: {found['object']}")
                    yield found["type"], found["object"]

    async def writes(self) -> Writes:
        """What the API server has counted so far."""
        text = (await self._call("GET", "/metrics")).decode()
        found: Writes = Counter()
        for labels, value in _REQUEST.findall(text):
            seen = dict(_LABEL.findall(labels))
            if seen["verb"] not in ("GET", "LIST", "WATCH", "CONNECT"):
                place = seen["resource"], seen.get("subresource", "")
                found[seen["verb"], *place] += int(float(value))
        return found

    async def _call(
        self,
        verb: str,
        path: str,
        body: Object | None = None,
        kind: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> bytes:
        assert self._session is not None
        data = None if body is None else msgspec.json.encode(body)
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        headers = {"Content-Type": kind}
        async with self._session.request(
            verb, path, data=data, headers=headers, params=query, timeout=timeout
        ) as answer:
            content = await answer.read()
        if answer.status == 409:
            raise Stale(path)
        if answer.status >= 300:
            raise BenchError(
                f"{verb} {path}: {answer.status} {content[:500].decode(errors='replace')}"
            )
        return content
