"""The decider of VirtualMachines: the table of strategies, the back-off, and a simulated world in which it comes to rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operator.test_decide_vmi import JSON, merge

from qvirt_operator.decide_vm import FINALIZER, VmDecision, decide_vm
from qvirt_operator.decisions import Failure
from qvirt_operator.printable import UNSCHEDULABLE_FOR
from qvirt_operator.views import Vmi, timestamp
from qvirt_operator.vm_seen import Seen, Vm
from qvirt_operator.vm_status import GENERATION

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWNER = {"kind": "VirtualMachine", "name": "x", "uid": "vm-uid", "controller": True}


def machine(
    strategy: str = "Always",
    *,
    deleting: bool = False,
    finalizers: tuple[str, ...] = (FINALIZER,),
    **status: Any,
) -> Object:
    metadata: Object = {
        "name": "x",
        "namespace": "n",
        "uid": "vm-uid",
        "resourceVersion": "1",
        "generation": 3,
        "finalizers": list(finalizers),
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "metadata": metadata,
        "spec": {"runStrategy": strategy, "template": {"spec": {}}},
        "status": status,
    }


def instance(
    phase: str = "Running",
    *,
    uid: str = "u",
    ran: bool | None = None,
    deleting: bool = False,
    owner: Object | None = OWNER,
    **status: Any,
) -> Object:
    metadata: Object = {
        "name": "x",
        "namespace": "n",
        "uid": uid,
        "annotations": {GENERATION: "3"},
        "ownerReferences": [owner] if owner else [],
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    ran = phase == "Running" if ran is None else ran
    transitions = [{"phase": "Running"}] if ran else []
    return {
        "metadata": metadata,
        "status": {"phase": phase, "phaseTransitionTimestamps": transitions, **status},
    }


def decide(vm: Object, vmi: Object | None = None, now: datetime = NOW, **more: Any) -> VmDecision:
    return decide_vm(Seen(Vm(vm), Vmi(vmi) if vmi else None, now, **more))


START, STOP = {"action": "Start"}, {"action": "Stop", "uid": "u"}

CREATES = [
    ("Always", {}, True),
    ("Once", {}, True),
    ("Halted", {}, False),
    ("Manual", {}, False),
    ("Manual", {"stateChangeRequests": [START]}, True),
    ("RerunOnFailure", {}, True),
    ("RerunOnFailure", {"runStrategy": "RerunOnFailure"}, False),
    ("RerunOnFailure", {"runStrategy": "Halted"}, True),
    ("RerunOnFailure", {"runStrategy": "RerunOnFailure", "stateChangeRequests": [START]}, True),
]


@pytest.mark.parametrize(("strategy", "status", "expected"), CREATES)
def test_when_there_is_no_instance(strategy: str, status: Object, expected: bool) -> None:
    assert decide(machine(strategy, **status)).create is expected


DELETES = [
    # strategy, phase, requests, deleted
    ("Always", "Running", [], False),
    ("Always", "Running", [STOP], True),
    ("Always", "Running", [{"action": "Stop", "uid": "older"}], False),
    ("Always", "Succeeded", [], True),
    ("Always", "Failed", [], True),
    ("RerunOnFailure", "Succeeded", [], True),
    ("RerunOnFailure", "Failed", [], True),
    ("Manual", "Failed", [], False),
    ("Manual", "Running", [STOP], True),
    ("Manual", "Succeeded", [START], True),
    ("Manual", "Running", [START], False),
    ("Once", "Succeeded", [], False),
    ("Halted", "Running", [], True),
    ("Halted", "Failed", [], True),
]


@pytest.mark.parametrize(("strategy", "phase", "requests", "expected"), DELETES)
def test_when_there_is_an_instance(
    strategy: str, phase: str, requests: list[Object], expected: bool
) -> None:
    decision = decide(machine(strategy, stateChangeRequests=requests), instance(phase))
    assert (decision.delete is not None) is expected
    assert not decision.create


def test_a_rerun_is_a_request_that_is_written_before_the_deletion() -> None:
    decision = decide(
        machine("RerunOnFailure", runStrategy="RerunOnFailure"), instance("Failed", ran=True)
    )
    assert [r["action"] for r in decision.status["stateChangeRequests"]] == ["Start"]
    assert decision.delete is not None


@pytest.mark.parametrize("strategy", ["Always", "Manual", "RerunOnFailure"])
def test_a_restart_starts_again_only_when_it_has_stopped(strategy: str) -> None:
    asked: Object = {"runStrategy": strategy, "stateChangeRequests": [STOP, START]}
    stopping = decide(machine(strategy, **asked), instance("Running"))
    assert stopping.delete is not None
    assert "stateChangeRequests" not in stopping.status
    waiting = decide(machine(strategy, **asked), instance("Running", deleting=True))
    assert waiting.delete is None
    assert "stateChangeRequests" not in waiting.status
    again = decide(machine(strategy, **asked))
    assert again.create
    assert again.status["stateChangeRequests"] == [START]
    done = decide(
        machine(strategy, runStrategy=strategy, stateChangeRequests=[START]), instance("Running")
    )
    assert done.status["stateChangeRequests"] is None
    assert done.delete is None


def test_starting_a_halted_machine_flips_it() -> None:
    decision = decide(machine("Halted", stateChangeRequests=[START]))
    assert decision.patch == {"spec": {"runStrategy": "Always"}}


@pytest.mark.parametrize(
    ("count", "jitter", "seconds"), [(0, 0.0, 10), (1, 0.0, 40), (2, 0.5, 112), (9, 0.0, 300)]
)
def test_back_off(count: int, jitter: float, seconds: int) -> None:
    before = {
        "consecutiveFailCount": count,
        "lastFailedVMIUID": "old",
        "retryAfterTimestamp": "2025-01-01T00:00:00Z",
    }
    vm = machine("Always")
    if count:
        vm["status"]["startFailure"] = before
    decision = decide(vm, instance("Failed", ran=False), jitter=jitter)
    failure = decision.status["startFailure"]
    assert failure["consecutiveFailCount"] == count + 1
    until = NOW + timedelta(seconds=seconds)
    assert failure["retryAfterTimestamp"] == until.strftime("%Y-%m-%dT%H:%M:%SZ")
    waiting = decide({**vm, "status": merge(vm["status"], decision.status)})
    assert not waiting.create
    assert waiting.again is not None
    assert decide({**vm, "status": merge(vm["status"], decision.status)}, now=until).create


@pytest.mark.parametrize("change", ["ran", "asked", "manual"])
def test_the_back_off_ends(change: str) -> None:
    before = {
        "consecutiveFailCount": 2,
        "lastFailedVMIUID": "old",
        "retryAfterTimestamp": "2027-01-01T00:00:00Z",
    }
    vm = machine("Manual" if change == "manual" else "Always", startFailure=before)
    if change == "asked":
        vm["status"]["stateChangeRequests"] = [START]
    decision = decide(vm, instance() if change == "ran" else None)
    assert decision.status["startFailure"] is None


WORDS = [
    (machine(deleting=True), instance(), "Terminating"),
    (machine("Halted"), instance(), "Stopping"),
    (machine(), instance(deleting=True), "Stopping"),
    (machine(), instance(), "Running"),
    (machine(), instance(conditions=[{"type": "Paused", "status": "True"}]), "Paused"),
    (machine(), instance("Scheduling"), "Starting"),
    (
        machine(),
        instance(
            "Pending",
            conditions=[{"type": "Synchronized", "status": "False", "reason": "FailedPvcNotFound"}],
        ),
        "ErrorPvcNotFound",
    ),
    (
        machine(),
        instance(
            "Scheduling",
            conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
        ),
        "ErrorUnschedulable",
    ),
    (
        machine(),
        instance(
            "Scheduling",
            conditions=[{"type": "Synchronized", "status": "False", "reason": "ErrImagePull"}],
        ),
        "ErrImagePull",
    ),
    (machine(), None, "Starting"),
    (machine(), instance("Failed", ran=False), "CrashLoopBackOff"),
    (machine("Halted"), None, "Stopped"),
    (machine("Once"), instance("Succeeded"), "Stopped"),
]


@pytest.mark.parametrize(("vm", "vmi", "word"), WORDS)
def test_printable_status(vm: Object, vmi: Object | None, word: str) -> None:
    assert decide(vm, vmi).status["printableStatus"] == word


def unschedulable(since: datetime) -> Object:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "lastTransitionTime": timestamp(since),
    }
    return instance("Scheduling", conditions=[condition])


def test_what_cannot_be_scheduled_for_a_moment_is_starting() -> None:
    fresh = decide(machine(), unschedulable(NOW - timedelta(seconds=3)))
    assert fresh.status["printableStatus"] == "Starting"
    assert fresh.again is not None
    assert 7 <= fresh.again < 8
    later = decide(machine(), unschedulable(NOW - UNSCHEDULABLE_FOR))
    assert later.status["printableStatus"] == "ErrorUnschedulable"
    assert later.again is None


def test_a_claim_without_a_volume_is_waited_for() -> None:
    word = "WaitingForVolumeBinding"
    assert decide(machine(), instance("Scheduling"), unbound=True).status["printableStatus"] == word
    assert decide(machine(), unschedulable(NOW), unbound=True).status["printableStatus"] == word
    later = decide(machine(), unschedulable(NOW - timedelta(minutes=1)), unbound=True)
    assert later.status["printableStatus"] == "ErrorUnschedulable"


def test_an_orphan_of_its_name_is_taken_over() -> None:
    assert decide(machine(), instance(owner=None)).adopt == "u"


def test_somebody_elses_instance_is_left_alone() -> None:
    decision = decide(machine("Halted"), instance(owner={**OWNER, "uid": "other"}))
    assert decision.delete is None
    assert not decide(machine(), instance(owner={**OWNER, "uid": "other"})).create


def test_deletion() -> None:
    going = machine(deleting=True)
    with_guest = decide(going, instance())
    assert with_guest.delete is not None
    assert with_guest.patch == {}
    assert decide(going, instance(deleting=True)).delete is None
    assert decide(going).patch == {"metadata": {"finalizers": []}}


def test_orphaning_leaves_the_instance() -> None:
    going = machine(deleting=True, finalizers=(FINALIZER, "orphan"))
    assert decide(going, instance()) == VmDecision()


def test_a_changed_template_waits_for_a_restart() -> None:
    decision = decide(machine(), instance(), template_changed=True)
    assert "RestartRequired" in [c["type"] for c in decision.status["conditions"]]
    assert decision.restamp is None


class World:
    """The VM, its instance, and the time; decisions and moves of the outside are applied to it."""

    def __init__(self, vm: Object, vmi: Object | None) -> None:
        self.vm = vm
        self.vmi = vmi
        self.now = NOW
        self.made = 0

    def step(self, failure: Failure | None = None) -> VmDecision:
        decision = decide(self.vm, self.vmi, self.now, failure=failure)
        self.vm = merge(merge(self.vm, {"status": decision.status}), decision.patch)
        if decision.adopt and self.vmi:
            self.vmi = merge(self.vmi, {"metadata": {"ownerReferences": [OWNER]}})
        if decision.create:
            assert self.vmi is None
            self.made += 1
            self.vmi = instance("Pending", uid=f"made-{self.made}")
        if decision.restamp is not None and self.vmi:
            self.vmi = merge(
                self.vmi, {"metadata": {"annotations": {GENERATION: str(decision.restamp)}}}
            )
        if decision.delete and self.vmi:
            assert decision.delete.uid == self.vmi["metadata"]["uid"]
            # The instance's own pod is somebody else's test: it goes at once.
            self.vmi = None
        return decision

    def rest(self) -> bool:
        """Whether nothing is left to do, however long one waits."""
        for _ in range(12):
            decision = self.step()
            if decision == VmDecision():
                return True
            self.now += timedelta(seconds=decision.again or 0)
        return False


STATUS = st.fixed_dictionaries(
    {},
    optional={
        "runStrategy": st.sampled_from(["Always", "RerunOnFailure", "Halted"]),
        "stateChangeRequests": st.lists(
            st.sampled_from([START, STOP, {"action": "odd"}]), max_size=2
        )
        | JSON,
        "startFailure": JSON,
        "conditions": st.just([{"type": "Paused", "status": "True"}]) | JSON,
        "printableStatus": st.just("Stopped"),
    },
)
VMIS = st.none() | st.builds(
    instance,
    st.sampled_from(["", "Pending", "Scheduled", "Running", "Succeeded", "Failed"]),
    ran=st.booleans(),
    deleting=st.booleans(),
    owner=st.sampled_from([OWNER, None, {**OWNER, "uid": "other"}]),
    conditions=st.sampled_from([[], [{"type": "Ready", "status": "True"}], "nonsense"]),
)
VMS = st.builds(
    lambda strategy, deleting, finalizers, status: machine(
        strategy, deleting=deleting, finalizers=finalizers, **status
    ),
    st.sampled_from(["Always", "RerunOnFailure", "Manual", "Halted", "Once"]),
    st.booleans(),
    st.sampled_from([(), (FINALIZER,), (FINALIZER, "orphan"), ("theirs",)]),
    STATUS,
)


@given(VMS, VMIS)
def test_every_world_comes_to_rest(vm: Object, vmi: Object | None) -> None:
    assert World(vm, vmi).rest()


@given(VMS, VMIS, st.lists(st.sampled_from(["Running", "Succeeded", "Failed", "gone"]), max_size=5))
def test_whatever_the_guest_does(vm: Object, vmi: Object | None, moves: list[str]) -> None:
    world = World(vm, vmi)
    for move in moves:
        assert world.rest()
        if world.vmi is not None:
            phase = {"status": {"phase": move, "phaseTransitionTimestamps": [{"phase": move}]}}
            world.vmi = None if move == "gone" else merge(world.vmi, phase)
    assert world.rest()


@given(VMS, VMIS)
def test_a_failure_is_told_and_nothing_is_made(vm: Object, vmi: Object | None) -> None:
    failure = Failure(reason="FailedCreate", message="no")
    decision = decide(vm, vmi, failure=failure)
    assert not decision.create
    if decision.status and not Vm(vm).metadata.deleting:
        assert "Failure" in [c["type"] for c in decision.status["conditions"]]


@given(VMS)
def test_deletion_never_sticks(vm: Object) -> None:
    world = World(merge(vm, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), None)
    assert world.rest()
    left = world.vm["metadata"]["finalizers"]
    assert FINALIZER not in left or "orphan" in left
