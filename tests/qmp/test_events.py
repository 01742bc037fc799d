from __future__ import annotations

import asyncio
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_qmp import events
from qvirt_qmp.backlog import EventStream
from qvirt_qmp.events import Event, Known, Unknown, decode_event

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = [kind.__struct_config__.tag for kind in get_args(Known)]


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (
            {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}},
            events.Shutdown(guest=True, reason="guest-shutdown"),
        ),
        ({"event": "SHUTDOWN"}, events.Shutdown()),
        ({"event": "POWERDOWN", "timestamp": {"seconds": 1}}, events.Powerdown()),
        (
            {"event": "RESET", "data": {"guest": False, "reason": "host-qmp-system-reset"}},
            events.Reset(guest=False, reason="host-qmp-system-reset"),
        ),
        (
            {"event": "GUEST_PANICKED", "data": {"action": "pause", "info": {"type": "hyper-v"}}},
            events.GuestPanicked(action="pause", info={"type": "hyper-v"}),
        ),
        # One unplug: the backend first, without a name, then the device.
        (
            {"event": "DEVICE_DELETED", "data": {"path": "/machine/peripheral/d/virtio-backend"}},
            events.DeviceDeleted(path="/machine/peripheral/d/virtio-backend"),
        ),
        (
            {
                "event": "BLOCK_IO_ERROR",
                "data": {
                    "device": "",
                    "node-name": "disk",
                    "operation": "read",
                    "action": "stop",
                    "nospace": True,
                    "reason": "No space left on device",
                    "qom-path": "/machine/peripheral/d",
                },
            },
            events.BlockIoError(
                node_name="disk",
                operation="read",
                action="stop",
                nospace=True,
                reason="No space left on device",
            ),
        ),
        ({"event": "NEW_THING", "data": {"a": 1}}, Unknown(name="NEW_THING", data={"a": 1})),
        (
            {"event": "WATCHDOG", "data": {"action": 3}},
            Unknown(name="WATCHDOG", data={"action": 3}),
        ),
        ({"event": "STOP", "data": [1]}, Unknown(name="STOP", data=[1])),
        ({"event": ["STOP"]}, Unknown(name="['STOP']")),
        # Data can't pretend to be another event.
        ({"event": "STOP", "data": {"event": "RESUME"}}, events.Stop()),
    ],
)
def test_decode(message: dict[str, object], event: Event) -> None:
    assert decode_event(message) == event


@given(st.sampled_from(NAMES) | JSON, JSON)
def test_decoding_is_total(name: object, data: object) -> None:
    assert isinstance(decode_event({"event": name, "data": data}), (*get_args(Known), Unknown))


def test_every_weighed_event_is_known() -> None:
    assert set(events.STATE) | set(events.TERMINAL) <= set(get_args(Known))


async def drain(stream: EventStream) -> list[Event]:
    stream.close()
    return [event async for event in stream]


async def test_a_full_stream_gives_up_chatter_then_states_never_the_end() -> None:
    stream = EventStream(4)
    stream.put(events.Resume())
    stream.put(events.Shutdown(reason="guest-shutdown"))
    for actual in range(10):
        stream.put(events.BalloonChange(actual=actual))
    stream.put(events.Stop())
    assert stream.dropped == 9
    for _ in range(20):
        stream.put(events.Reset())
    held = await drain(stream)
    assert held == [events.Shutdown(reason="guest-shutdown"), *[events.Reset()] * 3]
    assert stream.dropped == 29


@given(st.lists(st.sampled_from([events.Stop(), events.Powerdown(), Unknown(name="x")])))
def test_a_stream_keeps_order_and_its_bound(sent: list[Event]) -> None:
    stream = EventStream(5)
    for event in sent:
        stream.put(event)
    held = asyncio.run(drain(stream))
    assert len(held) == min(len(sent), 5) == len(sent) - stream.dropped
    rest = iter(sent)
    assert all(event in rest for event in held)  # a subsequence


async def test_a_waiting_reader_gets_what_comes_and_then_the_end() -> None:
    stream = EventStream()
    reading = asyncio.create_task(drain_open(stream))
    await asyncio.sleep(0)
    stream.put(events.Stop())
    await asyncio.sleep(0)
    stream.close()
    stream.put(events.Resume())
    assert await reading == [events.Stop()]


async def drain_open(stream: EventStream) -> list[Event]:
    return [event async for event in stream]
