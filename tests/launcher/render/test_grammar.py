"""The two filters and the line splitter, against readers of QEMU's own grammars."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_launcher.errors import RenderError
from qvirt_launcher.render import _split, checked, kv, to_json

#: Any text that an argument can carry.
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"))
KEYS = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,8}", fullmatch=True)


def read_options(text: str) -> list[tuple[str, str]]:
    """QEMU's reader of key=value lists (util/qemu-option.c): a doubled comma is a comma, a single one ends a value."""
    pairs = []
    rest = text
    while rest:
        key, equals, rest = rest.partition("=")
        assert equals, f"a key without value: {key!r}"
        value = ""
        while True:
            head, comma, tail = rest.partition(",")
            value += head
            if comma and tail.startswith(","):
                value, rest = value + ",", tail[1:]
                continue
            rest = tail
            break
        pairs.append((key, value))
    return pairs


@given(st.dictionaries(KEYS, PLAIN, min_size=1, max_size=5))
def test_kv_comes_back_as_it_was(options: dict[str, str]) -> None:
    assert read_options(kv(options)) == list(options.items())


def test_kv_writes_booleans_and_leaves_none_out() -> None:
    assert kv({"a": True, "b": False, "c": None, "d": 7}) == "a=on,b=off,d=7"


def test_kv_refuses_a_key_that_would_be_two() -> None:
    with pytest.raises(AssertionError):
        kv({"a=1,b": "x"})


@given(
    st.recursive(
        PLAIN | st.integers() | st.booleans() | st.none(),
        lambda x: st.lists(x) | st.dictionaries(PLAIN, x),
    )
)
def test_json_comes_back_as_it_was_on_one_line(value: object) -> None:
    text = to_json(value)  # type: ignore[arg-type]
    assert json.loads(text) == value
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b", "\ud800", "\n-drive file=/etc/passwd"])
def test_what_no_argument_can_carry_is_refused(bad: str) -> None:
    for write in (
        checked,
        to_json,
        lambda x: to_json({"a": [x]}),
        lambda x: to_json({x: 1}),
        lambda x: kv({"a": x}),
    ):
        with pytest.raises(RenderError, match=r"line break|Unicode"):
            write(bad)


@given(PLAIN)
def test_a_line_is_a_flag_and_the_rest(value: str) -> None:
    assert _split(f"# why\n\n-append {value}\n-S\n") == ["-append", value, "-S"]


def test_rendering_loads_nothing_more() -> None:
    """After privileges were dropped, Python's files may be unreadable."""
    program = """
import sys, datetime, msgspec
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher import render
from qvirt_launcher.facts import HostFacts
from qvirt_launcher.machine import build_machine
vmi = msgspec.convert({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
    "metadata": {"name": "a"}, "spec": {"domain": {"devices": {}, "memory": {"guest": "1Gi"},
    "firmware": {"uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223"}}}}, VirtualMachineInstance)
facts = HostFacts(accel="tcg", run_dir="/r", now=datetime.datetime.now(datetime.UTC))
before = set(sys.modules)
assert render.render(build_machine(vmi, facts))[0] == "qemu-system-x86_64"
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
