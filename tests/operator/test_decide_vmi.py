"""The decider of instances: tables, and laws that hold for every state that can be observed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_crds.status import CONDITION_WRITERS, PHASE_WRITERS, WRITERS, synchronized_writer
from qvirt_operator.decide_vmi import FINALIZER, NODE_LABEL, VmiDecision, decide_vmi
from qvirt_operator.decisions import Failure
from qvirt_operator.views import Pod, Vmi, convert
from qvirt_operator.vmi_phase import IMMINENT, UNDECIDED
from qvirt_operator.vmi_seen import Seen

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def instance(phase: str = "", *, deleting: bool = False, **status: Any) -> Vmi:
    metadata: Object = {
        "name": "x",
        "namespace": "n",
        "uid": "u",
        "resourceVersion": "1",
        "finalizers": [FINALIZER],
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return Vmi({"metadata": metadata, "spec": {}, "status": {"phase": phase, **status}})


def pod(
    phase: str = "Pending",
    compute: Object | None = None,
    *,
    deleting: bool = False,
    others: tuple[bool, ...] = (),
    node: str | None = None,
    more: Object | None = None,
    **status: Any,
) -> Pod:
    metadata: Object = {
        "name": "p",
        "namespace": "n",
        "uid": "pu",
        "annotations": {"kubevirt.io/memory-overhead-bytes": "7"},
        **(more or {}),
    }
    if deleting:
        metadata |= {
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 60,
        }
    statuses: list[Object] = (
        [] if compute is None else [{"name": "compute", "state": compute, "image": "i"}]
    )
    statuses += [{"name": f"volume{i}", "ready": ready} for i, ready in enumerate(others)]
    given_status = {"phase": phase, "containerStatuses": statuses, **status}
    if node is None:
        node = "node-1" if phase != "Pending" else ""
    spec = {"nodeName": node, "containers": [{"name": "compute", "image": "launcher"}]}
    return convert({"metadata": metadata, "spec": spec, "status": given_status}, Pod)


RUNNING: Object = {"running": {}}


def ended(code: int) -> Object:
    return {"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"}}


def decide(vmi: Vmi, *pods: Pod, **more: Any) -> VmiDecision:
    return decide_vmi(Seen(vmi, NOW, pods=pods, **more))


PHASES = [
    # phase, pod, next phase
    ("", None, "Pending"),
    ("Pending", None, None),
    ("Pending", pod(), "Scheduling"),
    ("Scheduling", pod(), None),
    ("Scheduling", pod("Running", RUNNING), "Scheduled"),
    ("Scheduling", pod("Running", RUNNING, others=(True, False)), None),
    ("Scheduling", pod("Running", RUNNING, others=(True, True)), "Scheduled"),
    ("Scheduling", pod("Running", RUNNING, deleting=True), "Failed"),
    ("Scheduling", None, "Failed"),
    ("Scheduling", pod("Failed"), "Failed"),
    ("Scheduled", pod("Running", RUNNING), None),
    ("Scheduled", pod("Running", RUNNING, deleting=True), None),
    ("Scheduled", pod("Running", ended(0)), "Succeeded"),
    ("Scheduled", None, "Failed"),
    ("Running", pod("Running", RUNNING), None),
    ("Running", pod("Running", ended(0)), "Succeeded"),
    ("Running", pod("Running", ended(7)), "Failed"),
    ("Running", pod("Succeeded", ended(0)), "Succeeded"),
    ("Running", pod("Failed", reason="Evicted"), "Failed"),
    ("Running", None, "Failed"),
    ("Succeeded", None, None),
    ("Failed", pod("Running", RUNNING), None),
]


@pytest.mark.parametrize(("phase", "its_pod", "expected"), PHASES)
def test_phases(phase: str, its_pod: Pod | None, expected: str | None) -> None:
    decision = decide(instance(phase), *([its_pod] if its_pod else []))
    status = decision.patch.get("status", {})
    assert status.get("phase") == expected
    if expected is not None:
        assert status["phaseTransitionTimestamps"][-1]["phase"] == expected


def test_handing_over_is_one_write_as_soon_as_the_pod_has_its_node() -> None:
    decision = decide(instance("Pending", memory={"guestAtBoot": "1Gi"}), pod(node="node-1"))
    patch = decision.patch
    assert patch["metadata"]["labels"] == {NODE_LABEL: "node-1"}
    assert patch["status"]["nodeName"] == "node-1"
    assert patch["status"]["phase"] == "Scheduling"
    assert patch["status"]["activePods"] == {"pu": "node-1"}
    assert patch["status"]["launcherContainerImageVersion"] == "launcher"
    assert patch["status"]["memory"] == {"memoryOverhead": "7"}
    assert decision.pod_condition is not None


def test_what_is_about_to_be_true_anyway_is_not_written() -> None:
    """A scheduler decides, and a guest starts, within a moment: only those that take longer are worth a write."""
    vmi = after(instance(), decide(instance()))
    fresh = pod(more={"creationTimestamp": "2026-01-01T00:00:00Z"}, qosClass="Burstable")
    waiting = decide(vmi, fresh)
    assert (waiting.patch, waiting.again) == ({}, UNDECIDED.total_seconds())
    late = decide_vmi(Seen(vmi, NOW + UNDECIDED, pods=(fresh,)))
    assert late.patch["status"]["phase"] == "Scheduling"

    vmi = after(vmi, decide(vmi, pod(node="node-1")))
    started = pod("Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    soon = decide(vmi, started)
    assert (soon.patch, soon.again) == ({}, IMMINENT.total_seconds())
    late = decide_vmi(Seen(vmi, NOW + IMMINENT, pods=(started,)))
    assert late.patch["status"]["phase"] == "Scheduled"
    # A clock that is ahead of ours makes nobody wait.
    early = decide_vmi(Seen(vmi, NOW - IMMINENT, pods=(started,)))
    assert early.patch["status"]["phase"] == "Scheduled"


def test_an_unschedulable_pod_is_told_at_once() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    fresh = pod(more={"creationTimestamp": "2026-01-01T00:00:00Z"}, conditions=[condition])
    status = decide(instance("Pending"), fresh).patch["status"]
    assert status["phase"] == "Scheduling"
    assert "Unschedulable" in str(status["conditions"])


def test_a_guest_is_ready_when_its_pod_is_and_nothing_is_written_between() -> None:
    vmi = after(instance("Pending"), decide(instance("Pending"), pod(node="node-1")))
    running = Vmi({**vmi.data, "status": {**vmi.raw, "phase": "Running"}})
    not_yet = {"type": "Ready", "status": "False", "reason": "ContainersNotReady"}
    told = decide(running, pod(node="node-1", conditions=[not_yet]))
    assert told.patch == {}
    ready = {"type": "Ready", "status": "True"}
    patch = decide(running, pod("Running", RUNNING, conditions=[ready])).patch
    assert list(patch) == ["status"]
    assert list(patch["status"]) == ["conditions"]


def test_nothing_is_written_while_the_kubelet_is_about_to_see_the_open_gate() -> None:
    vmi = after(instance("Pending"), decide(instance("Pending"), pod(node="node-1")))
    running = Vmi({**vmi.data, "status": {**vmi.raw, "phase": "Running"}})
    closed = {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"}
    waiting = pod("Running", RUNNING, conditions=[closed])
    assert decide(running, waiting).patch == {}
    # What it says of a paused guest is the truth.
    conditions = [*running.raw["conditions"], {"type": "Paused", "status": "True"}]
    paused = Vmi({**running.data, "status": {**running.raw, "conditions": conditions}})
    assert "ReadinessGatesNotReady" in str(decide(paused, waiting).patch["status"]["conditions"])


def test_no_pod_without_the_finalizer() -> None:
    vmi = instance()
    bare = Vmi({**vmi.data, "metadata": {**vmi.data["metadata"], "finalizers": []}})
    first = decide(bare)
    assert not first.create_pod
    assert first.patch["metadata"]["finalizers"] == [FINALIZER]
    assert decide(vmi).create_pod


@pytest.mark.parametrize(
    "more", [{"missing_claims": ("c",)}, {"failure": Failure(reason="R", message="m")}]
)
def test_no_pod_while_something_is_wrong(more: Object) -> None:
    decision = decide(instance("Pending"), **more)
    assert not decision.create_pod
    (said,) = [c for c in decision.patch["status"]["conditions"] if c["type"] == "Synchronized"]
    assert said["status"] == "False"


def test_trouble_with_creating_stands_until_it_goes_well() -> None:
    """Else each try would be two writes, each of which is an event that leads to a try."""
    vmi = instance("Pending")
    failure = Failure(reason="FailedCreate", message="quota")
    told = after(vmi, decide(vmi, failure=failure))
    assert decide(told).create_pod
    assert decide(told).patch == {}
    assert decide(told, failure=failure).patch == {}


def test_a_shorter_grace_period_shortens_a_deletion() -> None:
    vmi = instance("Running", deleting=True)
    short = Vmi({**vmi.data, "spec": {"terminationGracePeriodSeconds": 0}})
    dying = pod("Running", RUNNING, deleting=True)
    assert decide(vmi, dying).delete_pods == ()
    (target,) = decide(short, dying).delete_pods
    assert target.grace_seconds == 30


def test_helpers_that_outlive_the_guest_are_deleted_in_the_end() -> None:
    vmi, its_pod = instance("Failed"), pod("Running", ended(137))
    soon = decide(vmi, its_pod)
    assert soon.delete_pods == ()
    assert soon.again is not None
    later = decide_vmi(Seen(vmi, NOW + timedelta(seconds=soon.again), pods=(its_pod,)))
    assert [target.uid for target in later.delete_pods] == ["pu"]


def test_a_paused_guest_drops_out_of_services() -> None:
    paused = instance("Running", conditions=[{"type": "Paused", "status": "True"}])
    decision = decide(paused, pod("Running", RUNNING))
    assert decision.pod_condition is not None
    assert decision.pod_condition[1]["status"] == "False"


def test_nonsense_in_one_field_does_not_hide_the_others() -> None:
    conditions = ["odd", {"type": "Paused", "status": "True"}]
    vmi = instance("Running", conditions=conditions, phaseTransitionTimestamps=[None, 5])
    assert vmi.phase == "Running"
    assert vmi.condition("Paused") is not None


# --- laws ------------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)
KINDS = st.sampled_from(["Ready", "Synchronized", "PodScheduled", "Paused", "AgentConnected"])
CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {"type": KINDS, "status": st.sampled_from(["True", "False"])},
        optional={
            "reason": st.sampled_from(["FailedPvcNotFound", "x"]),
            "lastProbeTime": st.none(),
        },
    ),
    max_size=3,
    unique_by=lambda condition: condition["type"],
)
STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(
            ["", "Pending", "Scheduling", "Scheduled", "Running", "Succeeded", "Failed", "odd"]
        ),
        "conditions": CONDITIONS,
        "phaseTransitionTimestamps": st.just([]) | JSON,
        "activePods": st.dictionaries(
            st.sampled_from(["pu", "other"]), st.just("node-1"), max_size=2
        ),
        "interfaces": st.just([{"name": "default"}]),
        "nodeName": st.just("node-1"),
    },
)
STATES = st.none() | st.sampled_from(
    [RUNNING, ended(0), ended(3), {"waiting": {"reason": "ErrImagePull"}}, {}]
)
PODS = st.builds(
    pod,
    st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown", ""]),
    STATES,
    deleting=st.booleans(),
    others=st.lists(st.booleans(), max_size=2).map(tuple),
    node=st.sampled_from([None, "node-1", "node-2"]),
    conditions=CONDITIONS,
    qosClass=st.sampled_from(["Burstable", "Guaranteed"]),
)


@st.composite
def observations(draw: st.DrawFn) -> Seen:
    status = draw(STATUSES)
    vmi = instance(deleting=draw(st.booleans()))
    vmi = Vmi({**vmi.data, "status": draw(st.just(status) | JSON)})
    return Seen(
        vmi,
        NOW,
        pods=tuple(draw(st.lists(PODS, max_size=1))),
        missing_claims=tuple(draw(st.lists(st.just("c"), max_size=1))),
        failure=draw(st.none() | st.just(Failure(reason="FailedCreate", message="m"))),
        facts={"memory": {"guestAtBoot": "1Gi"}},
    )


def after(vmi: Vmi, decision: VmiDecision) -> Vmi:
    """The instance with the merge patch applied, as the API server does it (RFC 7396)."""
    return Vmi(merge(vmi.data, decision.patch))


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


@given(observations())
def test_every_state_leads_to_a_decision_and_comes_to_rest(seen: Seen) -> None:
    """With nothing else moving, a few steps end in one that writes nothing."""
    vmi = seen.vmi
    for _ in range(6):
        decision = decide_vmi(
            Seen(
                vmi,
                NOW,
                pods=seen.pods,
                missing_claims=seen.missing_claims,
                facts=seen.facts,
                failure=seen.failure,
            )
        )
        if not decision.patch:
            return
        vmi = after(vmi, decision)
    raise AssertionError(decision.patch)


@given(observations())
def test_only_our_own_fields_are_written(seen: Seen) -> None:
    patch = decide_vmi(seen).patch.get("status", {})
    ours = {field for field, writer in WRITERS.items() if writer == "virt-controller"}
    assert set(patch) <= ours | {"phase", "phaseTransitionTimestamps", "conditions"}
    if "phase" in patch:
        assert "virt-controller" in PHASE_WRITERS[patch["phase"]]
    before = seen.vmi.raw.get("conditions")
    if "conditions" in patch and isinstance(before, list):
        ours = {kind for kind, by in CONDITION_WRITERS.items() if by == "virt-controller"}
        if "phase" in patch or synchronized_writer(seen.vmi.phase) == "virt-controller":
            ours.add("Synchronized")
        theirs = [c for c in before if isinstance(c, dict) and c.get("type") not in ours]
        assert [c for c in patch["conditions"] if c in theirs] == theirs


@given(observations())
def test_a_final_phase_stays(seen: Seen) -> None:
    if seen.vmi.final:
        assert "phase" not in decide_vmi(seen).patch.get("status", {})


@given(observations())
def test_never_a_second_pod_and_none_for_what_is_going(seen: Seen) -> None:
    decision = decide_vmi(seen)
    if decision.create_pod:
        assert not seen.pods
        assert not seen.vmi.final
        assert not seen.vmi.metadata.deleting


@given(observations())
def test_deletion_never_sticks(seen: Seen) -> None:
    """Whatever its status says: all pods are told to go, and without pods the finalizer falls."""
    if not seen.vmi.metadata.deleting:
        return
    for one in seen.pods:
        told = [target.uid for target in decide_vmi(seen).delete_pods]
        assert one.metadata.deleting or one.metadata.uid in told
    without = Seen(seen.vmi, NOW, missing_claims=seen.missing_claims, failure=seen.failure)
    assert decide_vmi(without).patch["metadata"]["finalizers"] == []
