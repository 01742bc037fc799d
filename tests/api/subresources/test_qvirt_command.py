"""What `qvirt` does on a cluster, against the same API: requests, streams, forwarded ports."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.api.subresources.conftest import USER, Api, FakeHandler, FakeKube, until

from qvirt_launcher.cli import datagrams, pipes, port_forward
from qvirt_launcher.cli.cluster import websocket
from qvirt_launcher.cli.cluster.errors import ClusterError, ClusterRefused
from qvirt_launcher.cli.cluster.kubeconfig import Target
from qvirt_launcher.cli.values import Forward
from qvirt_launcher.cli.where import Remote

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Start = Callable[[Serve], Awaitable[int]]


@pytest.fixture
def remote(api: Api) -> Remote:
    tls = api.pki.client(api.pki.own, api.pki.front, "front-proxy-client")
    target = Target(server=api.url, namespace="ns", tls=tls, headers=USER)
    return Remote(target=target, namespace="ns", name="vm")


async def test_verbs(remote: Remote, cluster: FakeKube, handler: FakeHandler) -> None:
    cluster.vm("Halted")
    await asyncio.to_thread(remote.put, "virtualmachines", "start", {"paused": True})
    assert cluster.patches[0][0].endswith("/virtualmachines/vm/status")
    cluster.vmi()
    await asyncio.to_thread(remote.put, "virtualmachineinstances", "pause")
    assert handler.calls[0][:2] == ("PUT", "pause")


async def test_refusals_say_what_and_where(remote: Remote, cluster: FakeKube, api: Api) -> None:
    with pytest.raises(ClusterRefused) as caught:
        await asyncio.to_thread(remote.put, "virtualmachines", "start")
    text = 'virtualmachine.kubevirt.io "vm" not found'
    assert str(caught.value) == f"ns/vm on {api.url}: {text}"
    cluster.vmi("Scheduling")
    with pytest.raises(ClusterRefused, match="VMI is not running") as caught:
        await remote.stream("console")
    assert caught.value.status == 400
    nowhere = Target(
        server="https://127.0.0.1:1", namespace="ns", tls=remote.target.tls, headers={}
    )
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:1: "):
        await Remote(target=nowhere, namespace="ns", name="vm").stream("console")


async def test_a_console(remote: Remote, cluster: FakeKube) -> None:
    cluster.vmi()
    console = await remote.stream("console")
    assert await console.read() == b"this is console\n"
    for length in (0, 1, 125, 126, 65535, 65536, 300_000):
        data = os.urandom(length)
        console.send(data)
        await console.drain()
        got = b""
        while len(got) < length:
            got += await console.read()
        assert got == data
    console.send(b"bye")
    assert await console.read() == b""
    assert console.code == 1000
    console.abort()


async def test_a_session_that_is_taken_over(remote: Remote, cluster: FakeKube) -> None:
    cluster.vmi()
    first = await remote.stream("vnc")
    await first.read()
    second = await remote.stream("vnc")
    assert await first.read() == b""
    assert first.code == 1006
    first.abort()
    second.abort()


async def test_a_forwarded_port(
    remote: Remote, cluster: FakeKube, guest_port: Start, api: Api
) -> None:
    """The client's end reaches the guest, and the guest's last words the client."""
    cluster.vmi()

    async def reverse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        writer.write(data[::-1])
        await writer.drain()

    port = await guest_port(reverse)
    forward = Forward(here=0, guest=port)
    reader, writer, serving = await forwarded(remote, forward)
    data = os.urandom(3_000_000)
    writer.write(data)
    await writer.drain()
    writer.write_eof()
    async with asyncio.timeout(60):
        assert await reader.read() == data[::-1]
    writer.close()
    await until("no session is left", lambda: len(api.services.sessions) == 0)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def forwarded(
    remote: Remote, forward: Forward
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Task[None]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        here = free.getsockname()[1]
    serve = port_forward._serve(remote, "127.0.0.1", [forward._replace(here=here)])
    serving = asyncio.create_task(serve)
    async with asyncio.timeout(10):
        while True:
            try:
                return (*await asyncio.open_connection("127.0.0.1", here), serving)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)


async def test_a_port_that_nobody_serves(
    remote: Remote, cluster: FakeKube, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.vmi()
    reader, writer, serving = await forwarded(remote, Forward(here=0, guest=1))
    assert await reader.read() == b""
    writer.close()
    assert "dialing VM: dial tcp 127.0.0.1:1: " in capsys.readouterr().err
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_datagrams(remote: Remote, cluster: FakeKube) -> None:
    cluster.vmi()

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data, addr)

    loop = asyncio.get_running_loop()
    guest, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    port = guest.get_extra_info("sockname")[1]
    server = datagrams.DatagramServer(lambda: remote.stream(f"portforward/{port}/udp"))
    async with server.listening("127.0.0.1", 0) as here:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", here))
            for data in (b"a", b"b" * 1000):
                client.send(data)
                async with asyncio.timeout(20):
                    assert await loop.sock_recv(client, 2000) == data
    guest.close()


async def test_a_relay_ends_when_both_sides_have() -> None:
    class One:
        def __init__(self) -> None:
            self.sent: list[bytes] = []
            self.ended = self.aborted = False
            self.coming: asyncio.Queue[bytes] = asyncio.Queue()

        async def read(self) -> bytes:
            return await self.coming.get()

        def send(self, data: bytes) -> None:
            self.sent.append(data)

        async def drain(self) -> None:
            pass

        def end(self) -> None:
            self.ended = True

        def abort(self) -> None:
            self.aborted = True

    near, far = One(), One()
    relaying = asyncio.create_task(pipes.relay(near, far))
    near.coming.put_nowait(b"question")
    near.coming.put_nowait(b"")
    await until("the far side has heard the end", lambda: far.ended)
    assert not far.aborted
    far.coming.put_nowait(b"answer")
    far.coming.put_nowait(b"")
    await relaying
    assert (near.sent, far.sent) == ([b"answer"], [b"question"])
    assert near.aborted
    assert far.aborted


@given(st.binary(max_size=200), st.binary(min_size=4, max_size=4))
def test_masking_twice_changes_nothing(data: bytes, mask: bytes) -> None:
    assert websocket.masked(websocket.masked(data, mask), mask) == data
    assert websocket.masked(data, mask) == bytes(b ^ mask[i % 4] for i, b in enumerate(data))
