"""A client that says on the wire what virtctl says: its verbs, bodies, handshake headers and frames (reference, section 5.5).

It stands on aiohttp; the server's and the `qvirt` command's code is not used, so that both sides can't share a mistake.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

GROUP: Final = "/apis/subresources.kubevirt.io"
PROTOCOL: Final = "plain.kubevirt.io"
DEADLINE: Final = 60.0


class Answer:
    """An ordinary answer."""

    def __init__(self, status: int, content_type: str, body: bytes) -> None:
        self.status = status
        self.content_type = content_type
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """Of a Status; else the text."""
        with contextlib.suppress(ValueError):
            found = self.json()
            if isinstance(found, dict) and found.get("kind") == "Status":
                return str(found["message"])
        return self.text

    def __repr__(self) -> str:
        return f"{self.status} {self.content_type}: {self.text[:400]}"


class Refused(Exception):
    """The server answered a handshake like an ordinary request."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(repr(answer))


class Stream:
    """A websocket of bytes, as virtctl's copy loops see it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.text = b""
        #: How it ended: 1000 with a close frame, 1006 without; None: it has not.
        self.code: int | None = None

    async def send(self, data: bytes) -> None:
        """In one binary message."""
        await self.socket.send_bytes(data)

    async def receive(self, deadline: float = DEADLINE) -> bytes:
        """The next message's bytes; empty: it has ended (`code`)."""
        while True:
            async with asyncio.timeout(deadline):
                message = await self.socket.receive()
            match message.type:
                case aiohttp.WSMsgType.BINARY:
                    self.text += message.data if len(self.text) < 1 << 20 else b""
                    return bytes(message.data)
                case aiohttp.WSMsgType.CLOSE:
                    self.code = int(message.data)
                    return b""
                case aiohttp.WSMsgType.TEXT:
                    continue
                case _:
                    self.code = 1006
                    return b""

    async def until(self, text: bytes | str, deadline: float = DEADLINE) -> bytes:
        """Read on until this has appeared since the last call; what has.

        :raise AssertionError: not in time, or the stream ended.
        """
        wanted = text.encode() if isinstance(text, str) else text
        seen = b""
        try:
            async with asyncio.timeout(deadline):
                while wanted not in seen:
                    data = await self.receive(deadline)
                    assert data, f"ended ({self.code}) before {wanted!r}; seen: {seen[-2000:]!r}"
                    seen += data
        except TimeoutError:
            raise AssertionError(f"no {wanted!r} in {deadline} s; seen: {seen[-2000:]!r}") from None
        return seen

    async def rest(self, deadline: float = DEADLINE) -> bytes:
        """Everything until the end."""
        chunks = []
        while chunk := await self.receive(deadline):
            chunks.append(chunk)
        return b"".join(chunks)


class Virtctl:
    """:param server: URL of the API server.

    :param headers: e.g. a token, or ``Impersonate-User``.
    """

    def __init__(
        self,
        server: str,
        tls: ssl.SSLContext,
        namespace: str,
        headers: Mapping[str, str] | None = None,
        version: str = "v1",
    ) -> None:
        self.server = server
        self.namespace = namespace
        self._tls = tls
        self._headers = dict(headers or {})
        self._base = f"{server}{GROUP}/{version}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Virtctl:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0), headers=self._headers
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._session is not None
        assert self._session.connector is not None
        # A goodbye in TLS's way takes a moment, which may be after the end of the loop.
        await self._session.connector.close(abort_ssl=True)
        await self._session.close()

    # --- power -------------------------------------------------------------------------------------------------------

    async def start(self, name: str, **options: object) -> Answer:
        return await self.put("virtualmachines", name, "start", options)

    async def stop(self, name: str, **options: object) -> Answer:
        """``virtctl stop --force --grace-period=0``: gracePeriod=0."""
        return await self.put("virtualmachines", name, "stop", options)

    async def restart(self, name: str, **options: object) -> Answer:
        """``virtctl restart --force --grace-period=0``: gracePeriodSeconds=0."""
        return await self.put("virtualmachines", name, "restart", options)

    async def press(self, name: str, verb: str, **options: object) -> Answer:
        """pause, unpause, softreboot, reset, freeze, unfreeze."""
        return await self.put("virtualmachineinstances", name, verb, options)

    async def put(
        self, resource: str, name: str, verb: str, options: Mapping[str, object] | None = None
    ) -> Answer:
        body = json.dumps(options).encode() if options else b""
        return await self.request("PUT", self.path(resource, name, verb), body)

    # --- information -------------------------------------------------------------------------------------------------

    async def ask(self, name: str, what: str) -> Answer:
        """guestosinfo, userlist, filesystemlist."""
        return await self.request("GET", self.path("virtualmachineinstances", name, what))

    async def screenshot(self, name: str, move_cursor: bool = False) -> Answer:
        query = f"?moveCursor={str(move_cursor).lower()}"
        path = self.path("virtualmachineinstances", name, f"vnc/screenshot{query}")
        return await self.request("GET", path)

    async def version(self) -> Answer:
        """As virtctl finds it: the group's preferred version first."""
        group = (await self.request("GET", f"{self.server}{GROUP}")).json()
        preferred = group["preferredVersion"]["groupVersion"]
        return await self.request("GET", f"{self.server}/apis/{preferred}/version")

    async def request(self, method: str, url: str, body: bytes = b"") -> Answer:
        """Any request."""
        assert self._session is not None
        async with asyncio.timeout(DEADLINE):
            async with self._session.request(method, url, data=body or None) as response:
                return Answer(response.status, response.content_type, await response.read())

    def path(self, resource: str, name: str, verb: str) -> str:
        """URL of a subresource."""
        return f"{self._base}/namespaces/{self.namespace}/{resource}/{name}/{verb}"

    # --- streams -----------------------------------------------------------------------------------------------------

    def console(self, name: str) -> contextlib.AbstractAsyncContextManager[Stream]:
        return self.stream(self.path("virtualmachineinstances", name, "console"))

    def vnc(
        self, name: str, preserve: bool = False
    ) -> contextlib.AbstractAsyncContextManager[Stream]:
        query = "?preserveSession=true" if preserve else ""
        return self.stream(self.path("virtualmachineinstances", name, f"vnc{query}"))

    def port_forward(
        self, kind: str, name: str, port: int, protocol: str = "tcp"
    ) -> contextlib.AbstractAsyncContextManager[Stream]:
        """:param kind: ``vm`` or ``vmi``, as on virtctl's command line."""
        resource = {"vm": "virtualmachines", "vmi": "virtualmachineinstances"}[kind]
        return self.stream(self.path(resource, name, f"portforward/{port}/{protocol}"))

    @contextlib.asynccontextmanager
    async def stream(self, url: str) -> AsyncIterator[Stream]:
        """A websocket.

        :raise Refused: the handshake was answered with an error.
        """
        assert self._session is not None
        refused: list[bytes] = []
        trace = aiohttp.TraceConfig()

        async def keep(_session: Any, _context: Any, seen: Any) -> None:
            if seen.response.status != 101:
                refused.append(await seen.response.read())

        trace.on_request_end.append(keep)
        trace.freeze()
        connector = aiohttp.TCPConnector(ssl=self._tls, force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, headers=self._headers, trace_configs=[trace]
        ) as session:
            try:
                # Like Go's client: no extensions, version 13, the one subprotocol. autoclose off: the end is looked at.
                async with asyncio.timeout(DEADLINE):
                    socket = await session.ws_connect(
                        url,
                        protocols=(PROTOCOL,),
                        autoclose=False,
                        max_msg_size=0,
                        headers={"User-Agent": "Go-http-client/1.1"},
                        timeout=aiohttp.ClientWSTimeout(ws_close=10),
                    )
            except aiohttp.WSServerHandshakeError as error:
                content_type = error.headers.get("Content-Type", "") if error.headers else ""
                kind = content_type.partition(";")[0]
                raise Refused(Answer(error.status, kind, b"".join(refused))) from error
            assert socket.protocol == PROTOCOL, "the server must echo the subprotocol"
            try:
                yield Stream(socket)
            finally:
                await socket.close()
                await connector.close(abort_ssl=True)

    async def refusal(self, url: str) -> Answer:
        """What a handshake is refused with.

        :raise AssertionError: it is not.
        """
        try:
            async with self.stream(url):
                raise AssertionError(f"{url} is open")
        except Refused as error:
            return error.answer


def from_kubeconfig(path: str, namespace: str, user: str = "", version: str = "v1") -> Virtctl:
    """As kubectl would connect.

    :param user: impersonated, as by ``--as``.
    """
    document = yaml.safe_load(Path(path).read_text())
    cluster, who = document["clusters"][0]["cluster"], document["users"][0]["user"]
    context = ssl.create_default_context(cadata=_text(cluster, "certificate-authority"))
    headers: dict[str, str] = {}
    if "token" in who:
        headers["Authorization"] = f"Bearer {who['token']}"
    else:
        with tempfile.TemporaryDirectory() as folder:
            both = os.path.join(folder, "pem")
            text = _text(who, "client-certificate") + _text(who, "client-key")
            Path(both).write_text(text)
            context.load_cert_chain(both)
    if user:
        headers["Impersonate-User"] = user
    return Virtctl(cluster["server"], context, namespace, headers, version)


def _text(entry: Mapping[str, str], key: str) -> str:
    if f"{key}-data" in entry:
        return base64.b64decode(entry[f"{key}-data"]).decode()
    return Path(entry[key]).read_text()
