"""The door to the node's side: virt-handler's HTTPS server, which reaches the launcher's sockets.

Both sides show certificates of qvirt's own authority; where virt-handler is, its pod says.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import aiohttp
import msgspec

from qvirt_api.subresources import preconditions
from qvirt_api.subresources.errors import StatusError, internal
from qvirt_api.subresources.views import Instance
from qvirt_crds.model import Model
from qvirt_crds.names import HANDLER_SERVER_NAME, NODE_SERVER_PORT, PLAIN_STREAM
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError

#: For a connection; for an answer (a guest may need a while to freeze its file systems).
_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 60.0
#: One message of a console or a screen; the launcher's are much smaller.
MESSAGE_BYTES: Final = 4 * 1024 * 1024
_ERROR_BYTES: Final = 4096


class Answer(Model, frozen=True, kw_only=True):
    """What virt-handler said."""

    content_type: str
    body: bytes


class NodeAgents:
    """:param tls: gives the current client context, which changes when certificates are renewed.

    :param namespace: of the virt-handler pods.
    """

    def __init__(
        self,
        kube: Kube,
        tls: Callable[[], ssl.SSLContext],
        namespace: str,
        port: int = NODE_SERVER_PORT,
    ) -> None:
        self._kube = kube
        self._tls = tls
        self._namespace = namespace
        self._port = port

    async def call(
        self,
        vmi: Instance,
        verb: str,
        method: str,
        *,
        body: bytes = b"",
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request and its answer.

        :raise StatusError: the node refuses, or can't be reached.
        """
        url = await self._url(vmi, verb)
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS)
        try:
            async with (
                self._session(timeout) as session,
                session.request(
                    method,
                    url,
                    params=query,
                    data=body or None,
                    headers={"Content-Type": "application/json"} if body else None,
                    server_hostname=HANDLER_SERVER_NAME,
                ) as response,
            ):
                content = await response.read()
                if response.status >= 300:
                    raise _refusal(vmi, response.status, content)
                return Answer(content_type=response.content_type, body=content)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(vmi, error) from error

    @contextlib.asynccontextmanager
    async def stream(
        self, vmi: Instance, verb: str, query: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A websocket of binary messages, open as long as the context.

        :raise StatusError: the node refuses, or can't be reached.
        """
        url = await self._url(vmi, verb)
        refused: list[bytes] = []
        # No limit on the whole: a console stays open for days.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS * 2):
                    session = await stack.enter_async_context(self._session(timeout, refused))
                    socket = await stack.enter_async_context(
                        session.ws_connect(
                            url,
                            params=query,
                            protocols=(PLAIN_STREAM,),
                            server_hostname=HANDLER_SERVER_NAME,
                            max_msg_size=MESSAGE_BYTES,
                            timeout=aiohttp.ClientWSTimeout(ws_close=_CONNECT_SECONDS),
                        )
                    )
            except aiohttp.WSServerHandshakeError as error:
                refusal = _refusal(vmi, error.status, b"".join(refused))
                # As KubeVirt has it: 503 is for an API that is not there.
                raise internal(refusal.message) if refusal.code == 503 else refusal from error
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise _unreachable(vmi, error) from error
            yield socket

    def _session(
        self, timeout: aiohttp.ClientTimeout, refused: list[bytes] | None = None
    ) -> aiohttp.ClientSession:
        """One for each call: all nodes have the same name, so a connection must not serve another node's call."""
        trace = aiohttp.TraceConfig()

        async def keep_refusal(
            _session: aiohttp.ClientSession,
            _context: object,
            seen: aiohttp.TraceRequestEndParams,
        ) -> None:
            # The error of a refused handshake has no body; the response has, here and now.
            if refused is not None and seen.response.status != 101:
                refused.append((await seen.response.read())[:_ERROR_BYTES])

        trace.on_request_end.append(keep_refusal)
        connector = aiohttp.TCPConnector(ssl=self._tls(), force_close=True)
        return aiohttp.ClientSession(
            connector=connector, timeout=timeout, trace_configs=[trace], trust_env=False
        )

    async def _url(self, vmi: Instance, verb: str) -> str:
        preconditions.node_agent(vmi)
        address = await self._address(vmi)
        host = f"[{address}]" if ":" in address else address
        path = f"/v1/namespaces/{vmi.namespace}/virtualmachineinstances/{vmi.name}/{verb}"
        return f"https://{host}:{self._port}{path}"

    async def _address(self, vmi: Instance) -> str:
        """Of the virt-handler of the instance's node."""
        if not vmi.node:
            raise internal("the instance is on no node yet")
        try:
            found = await self._kube.get(
                f"/api/v1/namespaces/{self._namespace}/pods",
                labelSelector="kubevirt.io=virt-handler",
                fieldSelector=f"spec.nodeName={vmi.node},status.phase=Running",
            )
        except KubeError as error:
            raise internal(f"looking for the virt-handler of node {vmi.node}: {error}") from error
        for pod in found.get("items") or []:
            address = (pod.get("status") or {}).get("podIP")
            if address and "deletionTimestamp" not in pod["metadata"]:
                return str(address)
        raise internal(f"no virt-handler runs on node {vmi.node}")


def _unreachable(vmi: Instance, error: Exception) -> StatusError:
    cause = str(error) or f"no answer in time ({type(error).__name__})"
    return internal(f"virt-handler of node {vmi.node}: {cause}")


def _refusal(vmi: Instance, status: int, content: bytes) -> StatusError:
    """The node's own Status as it is; other errors are this API's failures, as KubeVirt has it."""
    try:
        said = msgspec.json.decode(content, type=dict[str, object])
    except msgspec.DecodeError:
        text = content.decode(errors="replace").strip()
        return internal(text or f"virt-handler of node {vmi.node} answers {status}")
    details = said.get("details")
    return StatusError(
        status,
        str(said.get("reason") or "InternalError"),
        str(said.get("message") or f"virt-handler of node {vmi.node} answers {status}"),
        details if isinstance(details, dict) else None,
    )
