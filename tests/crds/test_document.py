"""YAML as kubectl reads it, every value with its line, and text that is not YAML with line and column."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qvirt_crds.document import MAX_CHARACTERS, parse
from qvirt_crds.errors import SpecError


def one(text: str) -> Any:
    (document,) = parse(text, "vm.yaml")
    return document.data


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),
        ("10:20", "10:20"),
        ("1:30.5", "1:30.5"),
        ("2018-03-08", "2018-03-08"),
        ("2018-03-08T00:00:00Z", "2018-03-08T00:00:00Z"),
        ("64M", "64M"),
        ("=", "="),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        ("0x10", 16),
        ("010", 8),
        ("1_000", 1000),
        ("-7", -7),
        ("yes", True),
        ("Off", False),
        ("y", "y"),
        ("~", None),
        ("", None),
        ('"7"', "7"),
        ("!!str 7", "7"),
        (".inf", float("inf")),
    ],
)
def test_scalars(written: str, read: object) -> None:
    value = one(f"a: {written}")["a"]
    assert value == read
    assert type(value) is type(read)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), JSON, min_size=1)
)
def test_what_another_writer_writes_is_read_back(data: Any) -> None:
    # Strings in quotes: unquoted, writers of YAML 1.1 leave 1e100 a string and kubectl reads a number.
    for text in (
        yaml.safe_dump(data, default_style='"'),
        json.dumps(data),
        json.dumps(data, indent=4),
    ):
        assert one(text) == data


@settings(deadline=None)
@given(st.text(max_size=200) | st.text("{}[]:-,&*!|>\"'#%@? \n\tab<1", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    said = "vm.yaml:"
    try:
        parse(text, "vm.yaml")
    except SpecError as error:
        said = str(error)
    assert said.startswith("vm.yaml:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "vm.yaml:2:1: a is written twice (first in line 1)"),
        ("a: {b: 1,\n   b: 2}", "vm.yaml:2:4: a.b is written twice (first in line 1)"),
        ("a:\n\t- b", "vm.yaml:2:1: not YAML: found character '\\t' that cannot start any token (while scanning for the next token); YAML is indented with spaces, not tabs"),
        ("a: b: c", "vm.yaml:1:5: not YAML: mapping values are not allowed here"),
        ("a: [1", "vm.yaml:1:6: not YAML: expected ',' or ']', but got '<stream end>' (while parsing a flow sequence)"),
        ("a: 'b", "vm.yaml:1:6: not YAML: found unexpected end of stream (while scanning a quoted scalar)"),
        ("a:\n b: 1\n  c: 2", "vm.yaml:3:4: not YAML: mapping values are not allowed here"),
        ("- a", "vm.yaml:1:1: expected an object with apiVersion and kind"),
        ("just text", "vm.yaml:1:1: expected an object with apiVersion and kind"),
        ("a: &x [*x]", "vm.yaml:1:4: an alias refers to something that contains it"),
        ("a: *nobody", "vm.yaml:1:4: not YAML: found undefined alias 'nobody'"),
        ("a: !!python/object/apply:os.system [x]", "vm.yaml:1:4: the tag tag:yaml.org,2002:python/object/apply:os.system has no place in a manifest"),
        ("a: !mine x", "vm.yaml:1:4: the tag !mine has no place in a manifest"),
        ("a: !!binary aGk=", "vm.yaml:1:4: the tag tag:yaml.org,2002:binary has no place in a manifest"),
        ("? [1]\n: 2", "vm.yaml:1:3: a key must be a string"),
        ("a: " + "9" * 5000, f"vm.yaml:1:4: '{'9' * 40}' is not a value of type int"),
        ("a: 0x_", "vm.yaml:1:4: '0x_' is not a value of type int"),
        ("a: {<<: 3}", "vm.yaml:1:9: << takes an object or a list of objects"),
        ("{" * 3000, "vm.yaml: lists and objects are nested too deeply"),
        (" " * (MAX_CHARACTERS + 1), f"vm.yaml: the text is longer than {MAX_CHARACTERS} characters"),
    ],
)  # fmt: skip
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse(text, "vm.yaml")
    assert str(raised.value) == message


def test_control_characters_are_not_text() -> None:
    with pytest.raises(SpecError, match=r"vm\.yaml: this is not YAML text: unacceptable character"):
        parse("a: \x00", "vm.yaml")


def test_aliases_can_not_stand_for_billions() -> None:
    rows = [f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(SpecError, match="aliases expand to more than 200000 values"):
        parse("\n".join(["k0: &k0 [1]", *rows]), "vm.yaml")


def test_anchors_and_merge_keys() -> None:
    text = "base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\nboth: {<<: [{x: 5}, *b]}"
    data = one(text)
    assert data["other"] == {"x": 1, "y": 3}
    assert data["both"] == {"x": 5, "y": 2}


def test_keys_that_are_not_strings_become_strings_as_in_json() -> None:
    assert one("labels: {1: a, true: b, 'c': d}") == {"labels": {"1": "a", "true": "b", "c": "d"}}


def test_lines() -> None:
    documents = parse("---\n---\na:\n  - b: 1\n    x/y: 2\n---\nc: 1\n", "vm.yaml")
    assert [d.data for d in documents] == [{"a": [{"b": 1, "x/y": 2}]}, {"c": 1}]
    first, second = documents
    assert first.where("a") == "vm.yaml:3"
    assert first.where("a[0].b") == "vm.yaml:4"
    assert first.where("a[0][x/y]") == "vm.yaml:5"
    assert first.where("a[0].missing.deeper[3].still") == "vm.yaml:4"
    assert second.where("nothing") == "vm.yaml:7"
