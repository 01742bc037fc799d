"""Port-forwarding: everything arrives, ends are ends, and who vanishes leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

import aiohttp
import pytest
from tests.api.subresources.conftest import Api, FakeKube, descriptors, until
from tests.api.virtctl import Stream, Virtctl

from qvirt_api.subresources import portforward

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Start = Callable[[Serve], Awaitable[int]]
_MEGABYTE = 1 << 20


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing is given up after half a second."""
    monkeypatch.setattr(portforward, "_SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(portforward, "_PING_SECONDS", 0.1)


@pytest.mark.parametrize("kind", ["vm", "vmi"])
async def test_bytes_go_both_ways(
    kind: str, jane: Virtctl, cluster: FakeKube, guest_port: Start
) -> None:
    cluster.vm()
    cluster.vmi()
    port = await guest_port(echo)
    async with jane.port_forward(kind, "vm", port) as stream:
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"


async def test_200_megabytes_arrive_whole(
    jane: Virtctl, cluster: FakeKube, guest_port: Start
) -> None:
    cluster.vmi()
    block = bytes(range(256)) * 4096

    async def send(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(200):
            writer.write(block)
            await writer.drain()

    port = await guest_port(send)
    wanted = hashlib.sha256()
    for _ in range(200):
        wanted.update(block)
    seen, length = hashlib.sha256(), 0
    async with jane.port_forward("vmi", "vm", port) as stream:
        while chunk := await stream.receive():
            seen.update(chunk)
            length += len(chunk)
        assert stream.code == 1000
    assert length == 200 * _MEGABYTE
    assert seen.digest() == wanted.digest()


async def test_uploads_arrive_whole_although_the_guest_is_slow(
    jane: Virtctl, cluster: FakeKube, guest_port: Start
) -> None:
    cluster.vmi()
    received: list[int] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        digest, length = hashlib.sha256(), 0
        while data := await reader.read(100_000):
            digest.update(data)
            length += len(data)
        received.append(length)
        writer.write(digest.digest())

    port = await guest_port(take)
    block = bytes(range(256)) * 4096
    wanted = hashlib.sha256()
    async with jane.port_forward("vmi", "vm", port) as stream:
        for _ in range(30):
            wanted.update(block)
            await stream.send(block)
        # The client's close frame ends the guest's input; what the guest says then is delivered all the same.
        await stream.socket._writer.close(1000)
        assert await stream.rest() == wanted.digest()
    assert received == [30 * _MEGABYTE]


async def test_a_client_that_reads_nothing_stops_the_guest(
    jane: Virtctl, cluster: FakeKube, guest_port: Start
) -> None:
    cluster.vmi()
    written: list[int] = []

    async def send(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(100):
            writer.write(b"x" * _MEGABYTE)
            await writer.drain()
            written.append(_MEGABYTE)

    port = await guest_port(send)
    async with jane.port_forward("vmi", "vm", port) as stream:
        await asyncio.sleep(1)
        assert sum(written) < 50 * _MEGABYTE
        length = 0
        while chunk := await stream.receive():
            length += len(chunk)
    assert length == 100 * _MEGABYTE


async def test_a_guest_that_resets_cuts_the_stream(
    jane: Virtctl, cluster: FakeKube, guest_port: Start
) -> None:
    cluster.vmi()

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        found: socket.socket = writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    port = await guest_port(reset)
    async with jane.port_forward("vmi", "vm", port) as stream:
        await stream.send(b"x")
        await stream.rest()
        assert stream.code == 1006


async def test_a_client_that_vanishes_ends_the_guests_connection(
    jane: Virtctl, cluster: FakeKube, guest_port: Start, api: Api
) -> None:
    cluster.vmi()
    ended: list[bytes] = []

    async def wait(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.append(b"")

    port = await guest_port(wait)
    before = descriptors()
    for number in range(20):
        async with jane.port_forward("vmi", "vm", port) as stream:
            if number % 2:
                abort(stream)
    await until("the guest's connections have ended", lambda: len(ended) == 20)
    await until("no session is left", lambda: len(api.services.sessions) == 0)
    await until("no descriptor is left", lambda: descriptors() <= before)


def abort(stream: Stream) -> None:
    connection = stream.socket._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.abort()


@pytest.mark.usefixtures("impatient")
async def test_a_silent_client_is_given_up(
    jane: Virtctl, cluster: FakeKube, guest_port: Start, api: Api
) -> None:
    """One that answers no ping: nothing is read there, and the connection stays."""
    cluster.vmi()
    port = await guest_port(echo)
    async with jane.port_forward("vmi", "vm", port):
        await until("the session has ended", lambda: len(api.services.sessions) == 0)


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_takes_nothing_is_given_up(
    jane: Virtctl, cluster: FakeKube, guest_port: Start, api: Api
) -> None:
    """Also while pings wait behind what the guest says."""
    cluster.vmi()

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(_MEGABYTE))
                await writer.drain()

    port = await guest_port(pour)
    async with jane.port_forward("vmi", "vm", port):
        await until("the session has ended", lambda: len(api.services.sessions) == 0)


@pytest.mark.usefixtures("impatient")
async def test_a_guest_that_takes_nothing_is_no_silent_client(
    jane: Virtctl, cluster: FakeKube, guest_port: Start
) -> None:
    """Whose pings are not even read then."""
    cluster.vmi()
    taken = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await taken.wait()
        await reader.readexactly(32 * _MEGABYTE)
        writer.write(b"all of it")
        await writer.drain()

    port = await guest_port(stall)
    async with jane.port_forward("vmi", "vm", port) as stream:

        async def pour() -> None:
            for _ in range(32):
                await stream.send(bytes(_MEGABYTE))

        pouring = asyncio.create_task(pour())
        await asyncio.sleep(2)
        assert not pouring.done()
        taken.set()
        await pouring
        assert await stream.receive() == b"all of it"


async def test_pings_keep_a_session(
    jane: Virtctl, cluster: FakeKube, guest_port: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portforward, "_SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(portforward, "_PING_SECONDS", 0.1)
    cluster.vmi()
    port = await guest_port(echo)
    async with jane.port_forward("vmi", "vm", port) as stream:
        with pytest.raises(TimeoutError):  # answers pings meanwhile
            await stream.receive(3)
        await stream.send(b"still here")
        assert await stream.receive() == b"still here"


async def test_clients_may_ping(jane: Virtctl, cluster: FakeKube, guest_port: Start) -> None:
    cluster.vmi()
    port = await guest_port(echo)
    url = jane.path("virtualmachineinstances", "vm", f"portforward/{port}")
    async with jane.stream(url) as stream:
        stream.socket._autoping = False
        await stream.socket.ping(b"are you there")
        async with asyncio.timeout(10):
            while True:
                message = await stream.socket.receive()
                if message.type is aiohttp.WSMsgType.PONG:
                    break
                assert message.data == b"keep alive"
        assert message.data == b"are you there"


async def test_datagrams_keep_their_bounds(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.vmi()

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(b"<" + data + b">", addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    try:
        async with jane.port_forward("vmi", "vm", port, "udp") as stream:
            for data in (b"a", b"bb", b"x" * 9000):
                await stream.send(data)
                assert await stream.receive() == b"<" + data + b">"
    finally:
        transport.close()


async def test_nobody_listens(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.vm()
    cluster.vmi()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for resource in ("virtualmachines", "virtualmachineinstances"):
            answer = await jane.refusal(jane.path(resource, "vm", f"portforward/{port}/tcp"))
            assert answer.status == 500
            assert answer.message.startswith(f"dialing VM: dial tcp 127.0.0.1:{port}: ")


async def test_states_that_have_no_ports(jane: Virtctl, cluster: FakeKube) -> None:
    vm, vmi = (
        jane.path(resource, "vm", "portforward/80")
        for resource in ("virtualmachines", "virtualmachineinstances")
    )
    assert (await jane.refusal(vm)).status == 404
    cluster.vm()
    answer = await jane.refusal(vm)
    assert (answer.status, "VMI is not started" in answer.message) == (409, True)
    found = cluster.vmi()
    cluster.condition("Paused")
    answer = await jane.refusal(vmi)
    assert (answer.status, "VMI is paused" in answer.message) == (409, True)
    found["status"] = {"phase": "Running"}
    answer = await jane.refusal(vmi)
    assert (answer.status, answer.message) == (400, "no network interfaces are present")
