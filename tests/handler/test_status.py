"""What is written into a VMI's status, from what is there and what was seen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_crds.agent import AgentInterface, AgentReport, CredentialsSync, GuestOSInfo
from qvirt_crds.report import GuestInterface, Phase, VmReport
from qvirt_crds.status import CONDITION_WRITERS, FINAL, PHASE_WRITERS, WRITERS
from qvirt_handler.interfaces import Pod
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
    about = {key: more.pop(key) for key in ("agent", "interfaces") if key in more}
    return Seen(**{"report": report(phase, **about), **more})


def agent(**told: Any) -> Seen:
    return seen(agent=AgentReport(**told))


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


def test_a_guest_that_runs_before_it_was_told_is_one_write() -> None:
    failed_once = {"type": "Synchronized", "status": "False", "reason": "ErrImagePull"}
    scheduling = {"phase": "Scheduling", "conditions": [READY, failed_once]}
    assert decide(scheduling, seen("Starting"), NOW) == Written()
    written = decide(scheduling, seen(interfaces=(GUEST,)), NOW)
    assert written.changes["phase"] == "Running"
    passed = [entry["phase"] for entry in written.changes["phaseTransitionTimestamps"]]
    assert passed == ["Scheduled", "Running"]
    assert written.changes["interfaces"]
    assert written.changes["conditions"] == [READY]
    assert decide({**scheduling, **written.changes}, seen(interfaces=(GUEST,)), NOW) == Written()


def test_trouble_with_a_launcher_that_was_found_early_is_told() -> None:
    scheduling = {"phase": "Scheduling", "conditions": [READY]}
    written = decide(scheduling, seen("Failed", trouble="no disk"), NOW)
    assert written.changes["phase"] == "Scheduled"
    assert conditions(written)["Synchronized"]["message"] == "no disk"
    assert reasons(written) == ["SyncFailed"]


def test_what_is_known_before_the_guest_runs_waits_for_that_write() -> None:
    assert decide(SCHEDULED, seen("Preparing", interfaces=(GUEST,)), NOW) == Written()


def test_a_guest_that_is_stopped_before_it_ran_never_ran() -> None:
    stopping = Seen(report=report("Stopping", running_since=None))
    assert decide(SCHEDULED, stopping, NOW) == Written()


@pytest.mark.parametrize("phase", FINAL)
def test_a_final_status_is_left_alone(phase: str) -> None:
    assert decide({"phase": phase}, seen(trouble="x"), NOW) == Written()


@pytest.mark.parametrize("phase", ["", "Pending"])
def test_a_vmi_that_was_not_handed_over_stays_so(phase: str) -> None:
    assert "phase" not in decide({"phase": phase}, seen(), NOW).changes


def test_the_guest_is_at_the_pods_addresses_whatever_it_was_leased() -> None:
    pod = Pod(addresses=("10.1.2.3", "fd00::3"), primary="default", links={"default": "eth0"})
    there = Seen(pod=pod, report=report("Running", interfaces=(GUEST,)))
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
        pod=Pod(primary="default", addresses=("10.1.2.3",)),
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
    there = decide(running, agent(connected=True), NOW)
    assert conditions(there)["AgentConnected"]["status"] == "True"
    gone = decide({**running, **there.changes}, agent(), NOW)
    assert gone.changes == {"conditions": [READY]}


def test_an_agent_that_knows_too_little_is_there_all_the_same() -> None:
    written = decide({"phase": "Running"}, agent(connected=True, unsupported="Too old"), NOW)
    assert conditions(written)["AgentConnected"]["status"] == "True"
    assert conditions(written)["AgentVersionNotSupported"]["reason"] == "Too old"


def test_the_guests_system_is_told_and_stays_known() -> None:
    debian = GuestOSInfo(id="debian", name="Debian GNU/Linux", version_id="12")
    there = decide({"phase": "Running"}, agent(connected=True, os=debian), NOW)
    told = {"id": "debian", "name": "Debian GNU/Linux", "versionId": "12"}
    assert there.changes["guestOSInfo"] == told
    known = {"phase": "Running", "guestOSInfo": told}
    assert decide(known, agent(os=debian), NOW) == Written()
    other = decide(known, agent(connected=True, os=GuestOSInfo(id="arch", name="Arch")), NOW)
    assert other.changes["guestOSInfo"] == {"id": "arch", "name": "Arch", "versionId": None}


def test_a_frozen_guest_is_shown_so() -> None:
    frozen = decide({"phase": "Running"}, agent(connected=True, freeze_status="frozen"), NOW)
    assert frozen.changes["fsFreezeStatus"] == "frozen"
    thawed = agent(connected=True, freeze_status="thawed")
    assert decide({"phase": "Running", **frozen.changes}, thawed, NOW).changes == {
        "fsFreezeStatus": None
    }


def test_credentials_are_told_of_when_they_came_and_when_they_did_not() -> None:
    offline = CredentialsSync(synchronized=False, message="Guest agent is offline")
    booting = decide({"phase": "Running"}, agent(credentials=offline), NOW)
    told = conditions(booting)["AccessCredentialsSynchronized"]
    assert (told["status"], told["message"]) == ("False", "Guest agent is offline")
    assert booting.notices == ()
    running = {"phase": "Running", **booting.changes}
    there = decide(running, agent(credentials=CredentialsSync(synchronized=True)), NOW)
    assert conditions(there)["AccessCredentialsSynchronized"]["status"] == "True"
    assert reasons(there) == ["AccessCredentialsSyncSuccess"]
    refused = CredentialsSync(synchronized=False, message="no user vera")
    failed = decide({**running, **there.changes}, agent(credentials=refused), NOW)
    message = "Access credentials sync failed: no user vera"
    assert failed.notices == (
        Notice(reason="AccessCredentialsSyncFailed", message=message, warning=True),
    )


def test_trouble_is_told_once_for_each_cause() -> None:
    first = decide(SCHEDULED, Seen(trouble="no tap"), NOW)
    assert first.notices == (Notice(reason="SyncFailed", message="no tap", warning=True),)
    after = {**SCHEDULED, **first.changes}
    assert decide(after, Seen(trouble="no tap"), "later") == Written()
    second = decide(after, Seen(trouble="no bridge"), "later")
    assert reasons(second) == ["SyncFailed"]
    assert conditions(second)["Synchronized"]["lastTransitionTime"] == NOW
    assert decide(after, Seen(report=VmReport()), NOW).changes["conditions"] == []


def test_what_was_known_before_our_restart_stays_until_we_have_looked() -> None:
    known = {
        **SCHEDULED,
        "phase": "Running",
        "fsFreezeStatus": "frozen",
        "conditions": [
            {"type": kind, "status": "True"} for kind in ("Paused", "AgentConnected", "Ready")
        ],
    }
    assert decide(known, Seen(), NOW) == Written()
    (*kept, told) = decide(known, Seen(trouble="not found"), NOW).changes["conditions"]
    assert kept == known["conditions"]
    assert told["type"] == "Synchronized"


anything_told = st.builds(
    AgentReport,
    connected=st.booleans(),
    unsupported=st.sampled_from(["", "Too old"]),
    os=st.sampled_from([None, GuestOSInfo(id="debian"), GuestOSInfo(name="Arch")]),
    interfaces=st.sampled_from(
        [None, (), (AgentInterface(name="enp1s0", mac=GUEST.mac, addresses=("10.0.2.2",)),)]
    ),
    freeze_status=st.sampled_from(["", "frozen", "thawed"]),
    credentials=st.none()
    | st.builds(CredentialsSync, synchronized=st.booleans(), message=st.sampled_from(["", "x"])),
)
anything_seen = st.builds(
    Seen,
    report=st.none()
    | st.builds(
        report,
        st.sampled_from(["Waiting", "Starting", "Running", "Paused", "Stopping", "Failed"]),
        interfaces=st.sampled_from([(), (GUEST,)]),
        agent=st.none() | anything_told,
    ),
    pod=st.builds(
        Pod,
        addresses=st.sampled_from([(), ("10.0.0.1",)]),
        primary=st.sampled_from(["", "default"]),
    ),
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
    st.sampled_from(["Scheduling", "Scheduled", "Running", "Failed"]),
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
        assert "virt-handler" in PHASE_WRITERS[changes["phase"]]
    others = [c for c in there.get("conditions", []) if c["type"] == "Ready"]
    if "conditions" in changes:
        assert [c for c in changes["conditions"] if c["type"] == "Ready"] == others
        new = {c["type"] for c in changes["conditions"]} - {"Ready", "Synchronized"}
        assert all(CONDITION_WRITERS[kind] == "virt-handler" for kind in new)


def test_events_are_kubevirts() -> None:
    assert (CREATED.reason, CREATED.message) == ("Created", "VirtualMachineInstance defined.")
