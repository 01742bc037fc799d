"""The decider of replica sets: counts, choice of victims, convergence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operator.test_decide_vmi import merge

from qvirt_crds.replicaset import LabelSelector, VirtualMachineInstanceReplicaSetSpec
from qvirt_crds.selectors import as_text, matches
from qvirt_operator.decide_replicaset import BURST, ReplicaSetDecision, Seen, decide_replicaset
from qvirt_operator.decisions import Failure
from qvirt_operator.views import Vmi

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWNER = {"kind": "VirtualMachineInstanceReplicaSet", "name": "web", "uid": "rs", "controller": True}


def spec(
    replicas: int | None = None, *, paused: bool = False
) -> VirtualMachineInstanceReplicaSetSpec:
    data: Object = {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"spec": {"domain": {"devices": {}}}},
        "paused": paused,
    }
    if replicas is not None:
        data["replicas"] = replicas
    return msgspec.convert(data, VirtualMachineInstanceReplicaSetSpec)


def vmi(
    uid: str,
    phase: str = "Running",
    *,
    ready: bool = False,
    owned: bool = True,
    created: str = "2026-01-01T00:00:00Z",
    deleting: bool = False,
) -> Vmi:
    metadata: Object = {
        "name": uid,
        "uid": uid,
        "labels": {"app": "web"},
        "creationTimestamp": created,
        "ownerReferences": [OWNER] if owned else [],
    }
    if deleting:
        metadata["deletionTimestamp"] = created
    conditions = [{"type": "Ready", "status": str(ready)}]
    return Vmi({"metadata": metadata, "status": {"phase": phase, "conditions": conditions}})


def decide(
    wanted: VirtualMachineInstanceReplicaSetSpec,
    *vmis: Vmi,
    status: Object | None = None,
    **more: Any,
) -> ReplicaSetDecision:
    return decide_replicaset(Seen("rs", wanted, status or {}, vmis, NOW, **more))


def test_one_when_nothing_is_said() -> None:
    assert decide(spec()).create == 1


def test_what_is_missing_is_created() -> None:
    assert decide(spec(3), vmi("a")).create == 2
    assert decide(spec(100)).create == BURST


def test_what_ended_or_is_ending_does_not_count() -> None:
    decision = decide(spec(2), vmi("a", "Failed"), vmi("b", deleting=True))
    assert decision.create == 2
    assert [target.name for target in decision.delete] == ["a"]


def test_the_least_worth_goes_first() -> None:
    serving = vmi("serving", ready=True)
    old, young = vmi("old", created="2025-01-01T00:00:00Z"), vmi("young")
    starting = vmi("starting", "Scheduling")
    doomed = [t.name for t in decide(spec(0), serving, old, young, starting).delete]
    assert doomed == ["starting", "young", "old", "serving"]


@pytest.mark.parametrize(
    "more",
    [{"failure": Failure(reason="FailedCreate", message="m")}, {"wanted": spec(3, paused=True)}],
)
def test_nothing_is_made_while_paused_or_failing(more: Object) -> None:
    wanted = more.pop("wanted", spec(3))
    decision = decide(wanted, vmi("a", "Failed"), vmi("b", owned=False), **more)
    assert (decision.create, decision.delete, decision.adopt) == (0, (), ())
    kinds = {c["type"] for c in decision.status["conditions"]}
    assert kinds == ({"ReplicaPaused"} if wanted.paused else {"ReplicaFailure"})


def test_orphans_are_adopted_and_counted() -> None:
    decision = decide(spec(2), vmi("a", owned=False))
    assert decision.adopt == (("a", "a"),)
    assert decision.create == 1


def test_status() -> None:
    status = decide(spec(2), vmi("a", ready=True), vmi("b"), vmi("c", "Failed")).status
    assert (status["replicas"], status["readyReplicas"]) == (2, 1)
    assert status["labelSelector"] == "app=web"


def test_one_that_is_deleted_leaves_all_to_the_garbage_collector() -> None:
    assert decide(spec(3), vmi("a"), deleting=True) == ReplicaSetDecision()


WORLDS = st.lists(
    st.builds(
        vmi,
        st.uuids().map(str),
        st.sampled_from(["", "Running", "Failed", "Succeeded"]),
        ready=st.booleans(),
        owned=st.booleans(),
    ),
    max_size=15,
)


@given(WORLDS, st.integers(0, 30))
def test_it_converges(vmis: list[Vmi], replicas: int) -> None:
    status: Object = {}
    world = {v.metadata.uid: v for v in vmis}
    for _ in range(20):
        decision = decide(spec(replicas), *world.values(), status=status)
        if decision == ReplicaSetDecision():
            break
        status = merge(status, decision.status)
        for name, uid in decision.adopt:
            world[uid] = Vmi(merge(world[name].data, {"metadata": {"ownerReferences": [OWNER]}}))
        for target in decision.delete:
            del world[target.uid]
        for number in range(decision.create):
            uid = f"new-{len(world)}-{number}"
            world[uid] = vmi(uid, "")
    else:
        raise AssertionError(decision)
    owned = [v for v in world.values() if v.metadata.controller]
    assert len(owned) == replicas
    assert not any(v.final for v in owned)


SELECTORS = [
    ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True, "a=1"),
    ({"matchLabels": {"a": "1"}}, {"a": "2"}, False, "a=1"),
    ({}, {"a": "1"}, False, ""),
    (
        {"matchExpressions": [{"key": "a", "operator": "In", "values": ["2", "1"]}]},
        {"a": "1"},
        True,
        "a in (1,2)",
    ),
    (
        {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]},
        {},
        True,
        "a notin (1)",
    ),
    (
        {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]},
        {"a": "1"},
        False,
        "a notin (1)",
    ),
    ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False, "a"),
    ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {}, True, "!a"),
]


@pytest.mark.parametrize(("data", "labels", "expected", "text"), SELECTORS)
def test_selectors(data: Object, labels: dict[str, str], expected: bool, text: str) -> None:
    selector = msgspec.convert(data, LabelSelector)
    assert matches(selector, labels) is expected
    assert as_text(selector) == text
