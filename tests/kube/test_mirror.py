"""What a watch has missed is found, whatever it was; and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_kube.mirror import Listed, Mirror, stub, whole
from qvirt_kube.watching import Interest


def item(uid: str, version: int) -> dict[str, Any]:
    meta = {"uid": uid, "name": f"name-{uid}", "namespace": "x", "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}}


def listed(uid: str, version: int) -> Listed:
    return Listed(uid=uid, name=f"name-{uid}", namespace="x", version=str(version))


worlds = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3))


@given(told=worlds, there=worlds)
def test_doubts_are_where_list_and_watch_differ(
    told: dict[str, int], there: dict[str, int]
) -> None:
    mirror = Mirror()
    for uid, version in told.items():
        mirror.take(item(uid, version), gone=False)
    doubts = mirror.doubts(listed(*each) for each in there.items())
    differ = {uid for uid in told | there if told.get(uid) != there.get(uid)}
    assert {doubt.uid for doubt in doubts} == differ
    for doubt in doubts:
        assert doubt.name == f"name-{doubt.uid}"
        assert doubt.told == str(told.get(doubt.uid, ""))


def test_what_is_gone_is_forgotten() -> None:
    mirror = Mirror()
    mirror.take(item("a", 1), gone=False)
    mirror.take(item("b", 1), gone=False)
    mirror.take(item("a", 2), gone=True)
    assert mirror.drop("b") == stub(item("b", 1))
    assert mirror.drop("b") is None
    assert mirror.doubts([]) == ()


def test_what_is_kept_is_found_by_its_key() -> None:
    mirror = Mirror(whole, lambda item: str(item["spec"].get("of", "")))
    of_one = [item(uid, 1) | {"spec": {"of": "one"}} for uid in "ab"]
    for each in of_one:
        each["metadata"]["managedFields"] = [{}]
        mirror.take(each, gone=False)
        del each["metadata"]["managedFields"]
    assert list(mirror.find("one")) == of_one
    assert mirror.find("other") == ()
    mirror.take(item("a", 2) | {"spec": {"of": "other"}}, gone=False)
    assert mirror.find("one") == (of_one[1],)
    assert mirror.has("other")
    mirror.drop("b")
    assert not mirror.has("one")
    assert len(mirror) == len(list(mirror.all())) == 1


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.sampled_from(("take", "learn")))
    )
)
def test_nothing_that_comes_late_replaces_what_is_newer(steps: list[tuple[str, int, str]]) -> None:
    mirror = Mirror()
    newest: dict[str, int] = {}
    for uid, version, how in steps:
        if how == "take":
            mirror.take(item(uid, version), gone=False)
            newest[uid] = max(version, newest.get(uid, 0))
        else:
            mirror.learn(item(uid, version))
            if uid in newest:
                newest[uid] = max(version, newest[uid])
    assert {uid: mirror.version(uid) for uid in newest} == {u: str(v) for u, v in newest.items()}
    assert len(mirror) == len(newest)


def test_what_was_asked_for_stands_even_if_it_is_older() -> None:
    mirror = Mirror()
    mirror.take(item("a", 5), gone=False)
    mirror.put(item("a", 3))
    assert mirror.version("a") == "3"


@pytest.mark.parametrize(
    ("label", "labels", "fits"),
    [
        ("", None, True),
        ("a=b", {"a": "b", "c": "d"}, True),
        ("a=b", {"a": "c"}, False),
        ("a=", {"a": ""}, True),
        ("a=b", {}, False),
    ],
)
def test_the_label_of_an_interest(label: str, labels: dict[str, str] | None, fits: bool) -> None:
    found = item("a", 1)
    if labels is not None:
        found["metadata"]["labels"] = labels
    assert Interest(plural="pods", label=label).fits(found) is fits


def test_paths() -> None:
    vmis = Interest(group="kubevirt.io", plural="vmis")
    assert vmis.path() == "/apis/kubevirt.io/v1/vmis"
    assert vmis.path("x", "y") == "/apis/kubevirt.io/v1/namespaces/x/vmis/y"
    nodes = Interest(plural="nodes", namespaced=False)
    assert nodes.path("x", "y") == "/api/v1/nodes/y"
