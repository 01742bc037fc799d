"""What comes out of the agent's port, cut anywhere and full of rubbish."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from qvirt_launcher.agent_lines import (
    DELIMITER,
    Failure,
    Lines,
    Result,
    Rubbish,
    TooLong,
    is_mark,
    mark,
    read,
    request,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
LINES = st.lists(st.binary().filter(lambda b: b"\n" not in b and b"\xff" not in b))


def fed(lines: Lines, data: bytes, cuts: list[int]) -> list[bytes | TooLong]:
    """The lines of data that comes in pieces."""
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [line for start, end in pairwise(at) for line in lines.feed(data[start:end])]


@given(LINES, st.lists(st.integers(0)))
def test_lines_are_whole_however_they_come(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    assert fed(Lines(), data, cuts) == lines


@given(st.binary(), st.lists(st.integers(0)), st.integers(1, 50))
def test_nothing_is_held_beyond_the_limit(data: bytes, cuts: list[int], limit: int) -> None:
    lines = Lines(limit)
    for line in fed(lines, data, cuts):
        assert isinstance(line, TooLong) or len(line) <= limit
    assert len(lines._kept) <= limit


@given(st.binary(), st.integers(1, 2**31), st.lists(st.integers(0)))
def test_a_mark_is_found_behind_anything(before: bytes, number: int, cuts: list[int]) -> None:
    answer = DELIMITER + json.dumps({"return": number}).encode() + b"\n"
    found = fed(Lines(64), before + answer, cuts)
    assert isinstance(found[-1], bytes)
    assert is_mark(found[-1], number)
    assert not is_mark(found[-1], number + 1)


@given(st.binary())
def test_anything_can_be_read(line: bytes) -> None:
    assert isinstance(read(line), Result | Failure | Rubbish)


@given(JSON)
def test_what_is_returned_is_read(value: object) -> None:
    assert read(json.dumps({"return": value}).encode()) == Result(value)


def test_errors_are_read_as_far_as_they_say_something() -> None:
    assert read(b'{"error": {"class": "CommandNotFound", "desc": "no"}}') == Failure(
        "CommandNotFound", "no"
    )
    assert read(b'{"error": {}}') == Failure("", "")
    assert read(b'{"error": 1}') == Rubbish()
    assert read(b"[" * 100_000) == Rubbish()
    assert read(b"debian login: ") == Rubbish()


def test_only_a_number_is_a_mark() -> None:
    for line in (
        b'{"return": 1}',
        b'\xff{"return": true}',
        b'\xff{"return": "1"}',
        b'\xff{"return": 1.0}',
    ):
        assert not is_mark(line, 1)


def test_requests_are_lines() -> None:
    assert request("guest-ping") == b'{"execute":"guest-ping"}\n'
    assert mark(7) == b'\xff{"execute":"guest-sync-delimited","arguments":{"id":7}}\n'
