"""Consoles and screens: the handshake's refusals, bytes both ways, who ends whom, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web
from tests.api.subresources.conftest import Api, FakeHandler, FakeKube, descriptors, until
from tests.api.virtctl import Refused, Virtctl


async def test_bytes_go_both_ways(jane: Virtctl, cluster: FakeKube, handler: FakeHandler) -> None:
    cluster.vmi()
    async with jane.console("vm") as console:
        assert await console.receive() == b"this is console\n"
        await console.send(bytes(range(256)) * 300)
        assert await console.receive() == bytes(range(256)) * 300
    await until("the node's session has ended", lambda: not handler.sessions)


async def test_an_end_with_a_close_frame_is_one(jane: Virtctl, cluster: FakeKube, api: Api) -> None:
    cluster.vmi()
    async with jane.console("vm") as console:
        await console.send(b"bye")
        await console.rest()
        assert console.code == 1000
    await until("no session is left", lambda: len(api.services.sessions) == 0)


async def test_a_node_that_dies_cuts_the_session(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.vmi()
    async with jane.console("vm") as console:
        await console.send(b"crash")
        await console.rest()
        assert console.code == 1006


async def test_a_new_session_takes_over(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.vmi()
    async with jane.vnc("vm") as first:
        await first.receive()
        async with jane.vnc("vm") as second:
            await first.rest()
            assert first.code == 1006
            await second.until("this is vnc")
            await second.send(b"hello")
            await second.until("hello")


async def test_preserving_a_session(jane: Virtctl, cluster: FakeKube, handler: FakeHandler) -> None:
    cluster.vmi()
    text = "Active VNC connection. Request denied."
    handler.answer = lambda: web.json_response(
        {"kind": "Status", "message": text, "code": 503}, status=503
    )
    with pytest.raises(Refused) as caught:
        async with jane.vnc("vm", preserve=True):
            pass
    assert handler.calls[-1][3] == {"preserveSession": "true"}
    assert caught.value.answer.status == 500
    assert caught.value.answer.message == f"Internal error occurred: {text}"


REFUSALS = [
    ("console", "Pending", {}, 400, "VMI is not running"),
    ("console", "Scheduled", {}, 400, "VMI is not running"),
    ("console", "Succeeded", {}, 400, "VMI is not running"),
    ("console", "Failed", {}, 409, "VMI is in failed status"),
    (
        "console",
        "Running",
        {"autoattachSerialConsole": False},
        400,
        "No serial consoles are present.",
    ),
    (
        "vnc",
        "Running",
        {"autoattachGraphicsDevice": False},
        400,
        "No graphics devices are present.",
    ),
    ("vnc", "Scheduling", {}, 400, "VMI is not running"),
    ("portforward/80", "Scheduling", {}, 400, "VMI is not running"),
    ("portforward/0/tcp", "Running", {}, 400, "port must be between 1 and 65535"),
    ("portforward/80/sctp", "Running", {}, 400, "protocol must be tcp or udp"),
]


@pytest.mark.parametrize(("verb", "phase", "devices", "code", "text"), REFUSALS)
async def test_refusals_are_ordinary_answers(
    verb: str,
    phase: str,
    devices: dict[str, object],
    code: int,
    text: str,
    jane: Virtctl,
    cluster: FakeKube,
    handler: FakeHandler,
) -> None:
    cluster.vmi(phase, domain={"devices": devices})
    answer = await jane.refusal(jane.path("virtualmachineinstances", "vm", verb))
    assert (answer.status, answer.content_type) == (code, "application/json")
    assert text in answer.message
    assert len(answer.body) <= 1024
    assert not handler.calls


async def test_no_instance(jane: Virtctl) -> None:
    answer = await jane.refusal(jane.path("virtualmachineinstances", "gone", "console"))
    assert answer.status == 404


async def test_a_stream_wants_a_handshake(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.vmi()
    answer = await jane.request("GET", jane.path("virtualmachineinstances", "vm", "console"))
    assert (answer.status, "websocket" in answer.message) == (400, True)


async def test_who_is_denied_gets_no_stream(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.vmi()
    cluster.denied = "no"
    answer = await jane.refusal(jane.path("virtualmachineinstances", "vm", "console"))
    assert (answer.status, answer.text) == (401, "no")


async def test_a_slow_client_slows_the_node(
    jane: Virtctl, cluster: FakeKube, handler: FakeHandler
) -> None:
    """What a client sends and does not read back stays on the way: neither side's memory grows without bound."""
    cluster.vmi()
    async with jane.console("vm") as console:
        await console.receive()
        sent = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while sent < 1 << 28:
                    await console.send(b"x" * 65536)
                    sent += 65536
        assert sent < 1 << 26
        received = 0
        while received < sent:
            received += len(await console.receive())
        assert received >= sent


async def test_fifty_clients_leave_nothing_behind(
    jane: Virtctl, cluster: FakeKube, handler: FakeHandler, api: Api
) -> None:
    cluster.vmi()
    async with jane.console("vm"):
        pass
    await until("idle", lambda: not handler.sessions and not len(api.services.sessions))
    before = descriptors()
    for number in range(50):
        async with jane.console("vm") as console:
            await console.receive()
            if number % 2:  # vanish without a word
                transport = console.socket.get_extra_info("socket")
                assert transport is not None
                response = console.socket._response
                assert response.connection is not None
                assert response.connection.transport is not None
                response.connection.transport.abort()
    await until("no session is left", lambda: not handler.sessions)
    await until("none here either", lambda: len(api.services.sessions) == 0)
    await until("no descriptor is left", lambda: descriptors() <= before)


async def test_a_server_that_ends_says_so(jane: Virtctl, cluster: FakeKube, api: Api) -> None:
    cluster.vmi()
    async with jane.console("vm") as console:
        await console.receive()
        closing = asyncio.create_task(api.services.sessions.close())
        await console.rest()
        assert console.code == 1001
        await console.socket.close()
        await closing
