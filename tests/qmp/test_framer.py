from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_qmp.framer import Frame, Framer, Malformed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TEXTS = st.tuples(JSON, st.booleans(), st.booleans()).map(
    lambda drawn: json.dumps(
        drawn[0], ensure_ascii=drawn[1], indent=1 if drawn[2] else None
    ).encode()
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def feed(framer: Framer, pieces: list[bytes]) -> list[Frame]:
    return [frame for piece in pieces for frame in framer.feed(piece)]


@given(st.lists(TEXTS), st.lists(st.integers(min_value=0)), st.sampled_from([b"\n", b" ", b"\r\n"]))
def test_any_split_of_any_values_gives_these_values(
    texts: list[bytes], cuts: list[int], between: bytes
) -> None:
    stream = b"".join(text + between for text in texts)
    framer = Framer()
    assert feed(framer, split(stream, cuts)) == texts
    assert not framer.inside


@given(
    st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4),
    st.lists(st.integers(min_value=0)),
)
def test_objects_need_nothing_between_them(
    objects: list[dict[str, object]], cuts: list[int]
) -> None:
    texts = [json.dumps(each).encode() for each in objects]
    assert feed(Framer(), split(b"".join(texts), cuts)) == texts


@given(st.binary(max_size=400), st.lists(st.integers(min_value=0)))
def test_the_split_never_matters_whatever_the_bytes(data: bytes, cuts: list[int]) -> None:
    assert feed(Framer(limit=50, deepest=5), split(data, cuts)) == feed(
        Framer(limit=50, deepest=5), split(data, list(range(len(data))))
    )


@given(st.binary(max_size=400))
def test_after_any_bytes_a_reset_starts_afresh(data: bytes) -> None:
    framer = Framer(limit=50, deepest=5)
    framer.feed(data)
    assert framer.feed(b'\xff{"execute": "stop"}')[-1] == b'{"execute": "stop"}'


@given(st.binary(max_size=600))
def test_no_message_is_longer_than_the_limit(data: bytes) -> None:
    frames = Framer(limit=20).feed(data)
    assert all(len(frame) <= 20 for frame in frames if isinstance(frame, bytes))


@pytest.mark.parametrize("cut", range(20))
def test_the_limit_is_of_the_message_not_of_the_piece(cut: int) -> None:
    text = b'{"aaaaaaaaaaaaaaaa"}'
    assert len(text) == 20
    assert feed(Framer(limit=20), [text[:cut], text[cut:]]) == [text]
    assert feed(Framer(limit=19), [text[:cut], text[cut:]]) == [Malformed("longer than 19 bytes")]


def test_too_long_is_said_once_and_the_next_message_is_read() -> None:
    framer = Framer(limit=30)
    assert framer.feed(b'{"a": "' + b"x" * 50) == [Malformed("longer than 30 bytes")]
    assert framer.feed(b"x" * 50) == []
    assert framer.feed(b'"}{"b": 1}') == [b'{"b": 1}']


def test_too_deep_is_said_once_and_the_next_message_is_read() -> None:
    assert Framer(deepest=3).feed(b"[[[[[[]]]]]] [[[]]]") == [
        Malformed("nested deeper than 3"),
        b"[[[]]]",
    ]


def test_brackets_and_escapes_inside_strings_count_for_nothing() -> None:
    text = rb'{"a}{][": "\"}\\", "b": "\\\""}'
    assert Framer().feed(text + b"{}") == [text, b"{}"]


def test_a_line_ends_a_forgotten_string() -> None:
    assert Framer().feed(b'{"execute: 1}\n{"a": 1}') == [
        Malformed("a string is not closed at the end of its line"),
        b'{"a": 1}',
    ]


def test_an_escape_hides_neither_the_end_of_a_line_nor_a_reset() -> None:
    assert Framer().feed(b'{"a\\\n{"b": 1}') == [
        Malformed("a string is not closed at the end of its line"),
        b'{"b": 1}',
    ]
    assert Framer().feed(b'{"a\\\xff{"b": 1}') == [b'{"b": 1}']


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n", b"}", b"]]] ", b"null\n", b"\x00\x01\n"])
def test_junk_is_handed_on_and_left_behind(junk: bytes) -> None:
    framer = Framer()
    assert framer.feed(junk + b"\n")
    assert framer.feed(b'{"a": 1}')[-1] == b'{"a": 1}'
