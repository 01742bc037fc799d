"""What is written into a VMI's status, from what is there and what was seen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_crds.report import GuestInterface, Phase, VmReport
from qvirt_crds.status import CONDITION_WRITERS, FINAL, PHASE_WRITERS, WRITERS
from qvirt_handler.status import CREATED, Notice, Seen, Written, decide

THEN, NOW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
SCHEDULED = {
    "phase": "Scheduled",
    "phaseTransitionTimestamps": [{"phase": "Scheduled", "phaseTransitionTimestamp": THEN}],
}
READY: dict[str, Any] = {
    "type": "Ready",
    "status": "False",
    "reason": "GuestNotRunning",
    "extra": 1,
}
GUEST = GuestInterface(
    name="default", mac="02:00:00:00:00:01", address="10.0.2.2", address6="fd10::2", leased=True
)


def report(phase: Phase, **more: Any) -> VmReport:
    return VmReport(**{"phase": phase, "running_since": 1.0, **more})


def seen(phase: Phase = "Running", **more: Any) -> Seen:
    return Seen(**{"report": report(phase), **more})


def reasons(written: Written) -> list[str]:
    return [notice.reason for notice in written.notices]


def conditions(written: Written) -> dict[str, Any]:
    return {c["type"]: c for c in written.changes.get("conditions", [])}


@pytest.mark.parametrize("phase", ["Running", "Paused", "Stopping"])
def test_a_guest_at_work_is_running(phase: Phase) -> None:
    written = decide(SCHEDULED, seen(phase), NOW)
    assert written.changes["phase"] == "Running"
    assert written.changes["phaseTransitionTimestamps"] == [
        {"phase": "Scheduled", "phaseTransitionTimestamp": THEN},
        {"phase": "Running", "phaseTransitionTimestamp": NOW},
    ]
    assert "Started" in reasons(written)


@pytest.mark.parametrize("phase", ["Waiting", "Preparing", "Starting", "Succeeded", "Failed"])
def test_other_phases_are_not_the_handlers(phase: Phase) -> None:
    assert decide(SCHEDULED, seen(phase), NOW) == Written()


def test_a_guest_that_is_stopped_before_it_ran_never_ran() -> None:
    stopping = Seen(report=report("Stopping", running_since=None))
    assert decide(SCHEDULED, stopping, NOW) == Written()


@pytest.mark.parametrize("phase", FINAL)
def test_a_final_status_is_left_alone(phase: str) -> None:
    assert decide({"phase": phase}, seen(agent=True, trouble="x"), NOW) == Written()


@pytest.mark.parametrize("phase", ["", "Pending", "Scheduling"])
def test_a_vmi_that_was_not_handed_over_stays_so(phase: str) -> None:
    assert "phase" not in decide({"phase": phase}, seen(), NOW).changes


def test_the_guest_is_at_the_pods_addresses_whatever_it_was_leased() -> None:
    there = seen(
        addresses=("10.1.2.3", "fd00::3"), primary="default", pod_links={"default": "eth0"}
    )
    there = Seen(**{**_fields(there), "report": report("Running", interfaces=(GUEST,))})
    assert decide(SCHEDULED, there, NOW).changes["interfaces"] == [
        {
            "name": "default",
            "mac": "02:00:00:00:00:01",
            "infoSource": "domain",
            "ipAddress": "10.1.2.3",
            "ipAddresses": ["10.1.2.3", "fd00::3"],
            "podInterfaceName": "eth0",
        }
    ]


def test_the_pod_network_comes_first_and_others_show_what_the_guest_took() -> None:
    other = GuestInterface(name="blue", mac="02:00:00:00:00:02", address="192.168.1.5")
    taken = GuestInterface(name="red", mac="02:00:00:00:00:03", address="1.2.3.4", leased=True)
    there = Seen(
        report=report("Running", interfaces=(other, taken, GUEST)),
        primary="default",
        addresses=("10.1.2.3",),
    )
    found = decide(SCHEDULED, there, NOW).changes["interfaces"]
    assert [(i["name"], i.get("ipAddress")) for i in found] == [
        ("default", "10.1.2.3"),
        ("blue", None),
        ("red", "1.2.3.4"),
    ]


def test_a_pause_is_told_with_its_cause() -> None:
    running = {**SCHEDULED, "phase": "Running", "conditions": [READY]}
    user = decide(running, seen("Paused", run_state="paused"), NOW)
    assert conditions(user)["Paused"]["reason"] == "PausedByUser"
    assert conditions(user)["Paused"]["lastTransitionTime"] == NOW
    assert reasons(user) == ["Paused"]
    disk = decide(running, seen("Paused", run_state="io-error"), NOW)
    assert conditions(disk)["Paused"]["reason"] == "PausedIOError"
    again = decide({**running, **user.changes}, seen(), NOW)
    assert again.changes == {"conditions": [READY]}
    assert reasons(again) == ["Unpaused"]


def test_an_end_out_of_a_pause_is_no_unpausing() -> None:
    running = {"phase": "Running", "conditions": [{"type": "Paused", "status": "True"}]}
    gone = decide(running, seen("Succeeded"), NOW)
    assert gone.changes == {"conditions": []}
    assert gone.notices == ()


def test_an_agent_is_there_or_the_condition_is_not() -> None:
    running = {"phase": "Running", "conditions": [READY]}
    there = decide(running, seen(agent=True), NOW)
    assert conditions(there)["AgentConnected"]["status"] == "True"
    assert decide({**running, **there.changes}, seen(), NOW).changes == {"conditions": [READY]}


def test_trouble_is_told_once_for_each_cause() -> None:
    first = decide(SCHEDULED, Seen(trouble="no tap"), NOW)
    assert first.notices == (Notice(reason="SyncFailed", message="no tap", warning=True),)
    after = {**SCHEDULED, **first.changes}
    assert decide(after, Seen(trouble="no tap"), "later") == Written()
    second = decide(after, Seen(trouble="no bridge"), "later")
    assert reasons(second) == ["SyncFailed"]
    assert conditions(second)["GuestSynchronized"]["lastTransitionTime"] == NOW
    assert decide(after, Seen(), NOW) == Written(changes={"conditions": []})


def _fields(struct: Seen) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


anything_seen = st.builds(
    Seen,
    report=st.none()
    | st.builds(
        report,
        st.sampled_from(["Waiting", "Starting", "Running", "Paused", "Stopping", "Failed"]),
        interfaces=st.sampled_from([(), (GUEST,)]),
    ),
    addresses=st.sampled_from([(), ("10.0.0.1",)]),
    primary=st.sampled_from(["", "default"]),
    agent=st.booleans(),
    run_state=st.sampled_from(["", "paused", "io-error"]),
    trouble=st.sampled_from(["", "x"]),
)
_conditions = st.lists(
    st.sampled_from([READY, {"type": "Paused", "status": "True"}, {"type": "AgentConnected"}]),
    unique_by=lambda condition: str(condition["type"]),
)
anything_there: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda phase, conditions: (
        {"phase": phase, "conditions": conditions} if conditions else {"phase": phase}
    ),
    st.sampled_from(["Scheduled", "Running", "Failed"]),
    _conditions,
)


@given(there=anything_there, what=anything_seen)
def test_what_was_written_is_not_written_again(there: dict[str, Any], what: Seen) -> None:
    written = decide(there, what, NOW)
    assert decide({**there, **written.changes}, what, "later") == Written()


@given(there=anything_there, what=anything_seen)
def test_only_the_handlers_fields_and_conditions_change(there: dict[str, Any], what: Seen) -> None:
    changes = decide(there, what, NOW).changes
    for field in changes:
        assert field in ("phase", "phaseTransitionTimestamps", "conditions") or (
            WRITERS[field] == "virt-handler"
        )
    if "phase" in changes:
        assert PHASE_WRITERS[changes["phase"]] == "virt-handler"
    others = [c for c in there.get("conditions", []) if c["type"] == "Ready"]
    if "conditions" in changes:
        assert [c for c in changes["conditions"] if c["type"] == "Ready"] == others
        new = {c["type"] for c in changes["conditions"]} - {"Ready"}
        assert all(CONDITION_WRITERS[kind] == "virt-handler" for kind in new)


def test_events_are_kubevirts() -> None:
    assert (CREATED.reason, CREATED.message) == ("Created", "VirtualMachineInstance defined.")
