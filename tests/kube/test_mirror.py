"""What a watch has missed is found, whatever it was; and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_kube.mirror import Mirror, stub
from qvirt_kube.watching import Interest


def item(uid: str, version: int) -> dict[str, Any]:
    meta = {"uid": uid, "name": f"name-{uid}", "namespace": "x", "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}}


worlds = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3))


@given(told=worlds, there=worlds)
def test_doubts_are_where_list_and_watch_differ(
    told: dict[str, int], there: dict[str, int]
) -> None:
    mirror = Mirror()
    for uid, version in told.items():
        mirror.take(item(uid, version), gone=False)
    doubts = mirror.doubts([item(*each) for each in there.items()])
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
