from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_qmp.recorder import Entry, FlightRecorder, redact

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def recorder(max_bytes: int = 256 * 1024) -> FlightRecorder:
    ticks = itertools.count()
    return FlightRecorder(max_bytes, clock=lambda: float(next(ticks)))


def test_everything_is_kept_in_order_with_its_time_and_origin() -> None:
    flight = recorder()
    flight.command("qmp.sock#1", "query-status", {"a": 1})
    flight.event("STOP", None)
    flight.reply("qmp.sock#1", "query-status", {"running": False})
    flight.command("launcher", "cont", None)
    flight.error("launcher", "cont", "no answer")
    flight.refused("qmp.sock#1", "quit", {}, "use vm-stop")
    assert flight.entries() == (
        Entry(
            number=1,
            time=0.0,
            kind="command",
            name="query-status",
            origin="qmp.sock#1",
            body='{"a":1}',
        ),
        Entry(number=2, time=1.0, kind="event", name="STOP"),
        Entry(
            number=3,
            time=2.0,
            kind="reply",
            name="query-status",
            origin="qmp.sock#1",
            body='{"running":false}',
        ),
        Entry(number=4, time=3.0, kind="command", name="cont", origin="launcher"),
        Entry(number=5, time=4.0, kind="error", name="cont", origin="launcher", body="no answer"),
        Entry(
            number=6,
            time=5.0,
            kind="refused",
            name="quit",
            origin="qmp.sock#1",
            body="use vm-stop: ",
        ),
    )
    assert flight.entries(since=4) == flight.entries()[4:]
    assert flight.entries(since=6) == ()


def test_long_bodies_are_cut_and_say_so() -> None:
    flight = recorder()
    flight.reply("launcher", "query-qmp-schema", "x" * 10_000)
    (entry,) = flight.entries()
    assert len(entry.body) == 2048
    assert entry.cut == 10_002 - 2048


def test_what_is_not_json_is_noted_all_the_same() -> None:
    flight = recorder()
    flight.reply("launcher", "x", object())
    flight.event("x", {"a": object()})
    assert ["not JSON" in entry.body for entry in flight.entries()] == [True, True]


@given(st.lists(st.tuples(st.text(max_size=300), JSON), max_size=60), st.integers(300, 3000))
def test_the_ring_never_outgrows_its_bound(said: list[tuple[str, object]], bound: int) -> None:
    flight = recorder(bound)
    for name, value in said:
        flight.reply("c", name, value)
        flight.event(name, value)
    entries = flight.entries()
    texts = sum(len((each.name + each.body + each.origin).encode()) for each in entries)
    assert texts <= bound
    numbers = [each.number for each in entries]
    assert numbers == list(range(2 * len(said) - len(entries) + 1, 2 * len(said) + 1))


def test_the_bound_is_of_bytes_not_of_characters() -> None:
    flight = recorder(20_000)
    for _ in range(50):
        flight.error("c", "x", "😀" * 1000)
    assert 1 <= len(flight.entries()) <= 4


SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("set_password", {"protocol": "vnc", "password": SECRET}),
        ("change-vnc-password", {"password": SECRET}),
        ("expire_password", {"protocol": "vnc", "time": SECRET}),
        ("object-add", {"qom-type": "secret", "id": "s", "data": SECRET}),
        ("human-monitor-command", {"command-line": f"set_password vnc {SECRET}"}),
        ("blockdev-add", {"file": {"driver": "ssh", "password-secret": SECRET}}),
        ("sev-inject-launch-secret", {"secret": SECRET, "packet-header": SECRET}),
        ("send-key", {"keys": [{"type": "qcode", "data": SECRET}]}),
        (
            "vm-anything",
            {"volumes": [{"cloudInit": {"userData": SECRET, "a": {"userDataBase64": SECRET}}}]},
        ),
        ("vm-anything", {"Password": [SECRET], "api_token": {"x": SECRET}, "private-key": SECRET}),
    ],
)
def test_secrets_are_not_kept(command: str, arguments: dict[str, object]) -> None:
    flight = recorder()
    flight.command("c", command, arguments)
    flight.refused("c", command, arguments, "no")
    flight.reply("c", command, arguments if command not in ("send-key",) else None)
    kept = msgspec.json.encode(flight.entries()[:2]).decode()
    assert SECRET not in kept
    assert "(redacted)" in kept


def test_what_is_no_secret_stays() -> None:
    arguments = {"qom-type": "iothread", "id": "io1", "list": [{"keys": 1}]}
    assert redact("x", arguments) == arguments
