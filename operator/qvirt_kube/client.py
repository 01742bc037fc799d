"""The door to the ``kubernetes`` package: its configuration, authentication and transport, without its 700 models.

Objects are plain dicts, as the API server sends them; what of them matters is decoded by whoever asks
(`qvirt_crds`). Watching is another door's part (`qvirt_kube.watching`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Literal

import aiohttp
import msgspec
from kubernetes.aio import client, config

from qvirt_kube import errors

#: A Kubernetes object as JSON has it.
Object = dict[str, Any]
PatchType = Literal["merge", "json", "strategic"]

#: Seconds for one call; the API server's own limit is 60.
DEADLINE: Final = 30.0

_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_PATCH_TYPES: Final[Mapping[PatchType, str]] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


class Kube:
    """A connection to one API server. Use as an asynchronous context manager."""

    def __init__(self, kubeconfig: str | None = None) -> None:
        """:param kubeconfig: a file; None: the pod's service account, else KUBECONFIG or ``~/.kube/config``."""
        self._kubeconfig = kubeconfig
        self._api: client.ApiClient | None = None

    async def __aenter__(self) -> Kube:
        settings = client.Configuration()
        if self._kubeconfig is None:
            try:
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            except config.ConfigException:
                await config.load_kube_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                self._kubeconfig, client_configuration=settings
            )
        self._api = client.ApiClient(settings)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._api is not None:
            session = self._api.rest_client.pool_manager
            if session is not None and session.connector is not None:
                # Without it TLS is taken down by and by, which may be after the end of the loop.
                await session.connector.close(abort_ssl=True)
            await self._api.close()  # type: ignore[no-untyped-call]
            self._api = None

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
        assert self._api is not None, "used outside of `async with`"
        headers = {"Accept": accept, "Content-Type": content_type}
        request = await self._api.param_serialize(
            verb,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        what = f"{verb} {path}"
        try:
            async with asyncio.timeout(DEADLINE):
                response = await self._api.call_api(*request, _request_timeout=DEADLINE)
                content = await response.read()  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise errors.Unavailable(what, 0, f"no answer in {DEADLINE:.0f} s") from error
        except (OSError, aiohttp.ClientError, client.ApiException) as error:
            raise errors.Unavailable(what, 0, str(error) or type(error).__name__) from error
        if response.status >= 300:
            raise _refusal(what, response.status, content)
        try:
            return msgspec.json.decode(content, type=Object)
        except msgspec.DecodeError as error:
            raise errors.Unavailable(what, response.status, "the answer is not JSON") from error


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
