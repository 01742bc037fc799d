"""A connection to an API server: JSON over HTTPS, deadlines, and an error for each kind of answer.

Objects are plain dicts, as the API server sends them; what of them matters is decoded by whoever asks
(`qvirt_crds`). Watching is another door's part (`qvirt_kube.watching`).
"""

from __future__ import annotations

import asyncio
import urllib.parse
import urllib.request
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

import aiohttp
import msgspec

from qvirt_kube import errors
from qvirt_kube.access import Access, in_pod
from qvirt_kube.mirror import Listed

#: A Kubernetes object as JSON has it.
Object = dict[str, Any]
PatchType = Literal["merge", "json", "strategic"]
_T = TypeVar("_T")

#: Seconds for one call; the API server's own limit is 60.
DEADLINE: Final = 30.0
#: Each takes 300 KiB with its TLS, and a request takes milliseconds.
CONNECTIONS: Final = 8
#: Our own deadline is the only one.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)
#: Bytes of an answer that are read ahead; lists are long.
_BUFFER: Final = 2**18

_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_PATCH_TYPES: Final[Mapping[PatchType, str]] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


class Kube:
    """A connection to one API server. Use as an asynchronous context manager."""

    def __init__(self, kubeconfig: str | None = None, connections: int = CONNECTIONS) -> None:
        """:param kubeconfig: a file; None: the pod's service account, else KUBECONFIG or ``~/.kube/config``.
        :param connections: at most; further requests wait.
        """
        self._kubeconfig = kubeconfig
        self._connections = connections
        self._access: Access | None = None
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None

    async def __aenter__(self) -> Kube:
        """:raise errors.NoAccess: no telling where the API server is, or who we are."""
        self._access = await _access(self._kubeconfig)
        # Looked for once: aiohttp would do it for each request, and open ~/.netrc for each as well.
        self._proxy = self._access.proxy or _environment_proxy(self._access.server)
        connector = aiohttp.TCPConnector(ssl=self._access.tls, limit=self._connections)
        self._session = aiohttp.ClientSession(connector=connector, read_bufsize=_BUFFER)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            if self._session.connector is not None:
                # Without it TLS is taken down by and by, which may be after the end of the loop.
                await self._session.connector.close(abort_ssl=True)
            await self._session.close()
            self._session = None

    async def get(self, path: str, **query: str) -> Object:
        """One object, or a list of them with ``labelSelector`` and the like.

        :param path: e.g. ``/api/v1/namespaces/default/pods/x``.
        :raise errors.KubeError: see the tree there; holds for all verbs.
        """
        return await self._call("GET", path, query)

    async def list_metadata(self, path: str, **query: str) -> list[Object]:
        """What a list has, metadata only."""
        listed = await self._call("GET", path, query, accept=_METADATA_LIST)
        # Null when there are none.
        return listed.get("items") or []

    async def list_versions(self, path: str, **query: str) -> tuple[Listed, ...]:
        """What a list has, as little of it as tells which version of which object is there."""
        content = await self._ask("GET", path, query, accept=_METADATA_LIST)
        listed = _decode(f"GET {path}", content, _Versions)
        return tuple(item.metadata for item in listed.items or ())

    async def create(self, path: str, body: Object, **query: str) -> Object:
        """POST to a collection."""
        return await self._call("POST", path, query, body)

    async def replace(self, path: str, body: Object) -> Object:
        """PUT; a ``metadata.resourceVersion`` in the body makes it fail with `errors.Conflict` if it is stale."""
        return await self._call("PUT", path, {}, body)

    async def patch(
        self, path: str, body: object, kind: PatchType = "merge", **query: str
    ) -> Object:
        """PATCH; for ``json`` the body is a list of operations. A ``metadata.resourceVersion`` works as in `replace`."""
        return await self._call("PATCH", path, query, body, _PATCH_TYPES[kind])

    async def delete(self, path: str, options: Object | None = None) -> Object:
        """DELETE with DeleteOptions (``gracePeriodSeconds``, ``preconditions``, ``propagationPolicy``)."""
        return await self._call("DELETE", path, {}, options)

    async def apply(self, path: str, body: Object, manager: str) -> Object:
        """Server-side apply of a whole object, taking over fields that others set."""
        return await self._call(
            "PATCH",
            path,
            {"fieldManager": manager, "force": "true"},
            body,
            "application/apply-patch+yaml",
        )

    async def _call(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str],
        body: object = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        content = await self._ask(verb, path, query, body, content_type, accept)
        return _decode(f"{verb} {path}", content, Object)

    async def _ask(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str],
        body: object = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        assert self._session is not None, "used outside of `async with`"
        assert self._access is not None
        what = f"{verb} {path}"
        try:
            headers = {"Accept": accept, "Content-Type": content_type}
            if authorization := await self._access.authorization():
                headers["Authorization"] = authorization
            request = self._session.request(
                verb,
                f"{self._access.server}{path}",
                params=query,
                headers=headers,
                data=None if body is None else msgspec.json.encode(body),
                proxy=self._proxy,
                server_hostname=self._access.server_name,
                allow_redirects=False,
                timeout=_TIMEOUT,
            )
            async with asyncio.timeout(DEADLINE), request as response:
                content = await response.read()
        except TimeoutError as error:
            raise errors.Unavailable(what, 0, f"no answer in {DEADLINE:.0f} s") from error
        except (OSError, aiohttp.ClientError) as error:
            raise errors.Unavailable(what, 0, str(error) or type(error).__name__) from error
        if response.status >= 300:
            raise _refusal(what, response.status, content)
        return content


class _Item(msgspec.Struct, frozen=True):
    metadata: Listed


class _Versions(msgspec.Struct, frozen=True):
    #: Null when there are none.
    items: tuple[_Item, ...] | None = None


def _decode(what: str, content: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise errors.Unavailable(what, 200, "the answer is not what was asked for") from error


def _environment_proxy(server: str) -> str | None:
    parts = urllib.parse.urlsplit(server)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


async def _access(kubeconfig: str | None) -> Access:
    if kubeconfig is None and (found := in_pod()) is not None:
        return found
    try:
        # Late: a pod needs none of it, and its image doesn't have it.
        from qvirt_kube.kubeconfig import from_kubeconfig
    except ImportError as error:
        raise errors.NoAccess(
            f"no service account of a pod here, and a kubeconfig can't be read: {error}"
        ) from error
    return await from_kubeconfig(kubeconfig)


def _refusal(what: str, status: int, content: bytes) -> errors.KubeError:
    try:
        message = msgspec.json.decode(content, type=Object).get("message", "")
    except msgspec.DecodeError:
        message = content[:200].decode(errors="replace")
    match status:
        case 404:
            return errors.NotFound(what, status, message)
        case 409:
            return errors.Conflict(what, status, message)
        case 429 | 500 | 502 | 503 | 504:
            return errors.Unavailable(what, status, message)
        case _:
            return errors.Refused(what, status, message)
