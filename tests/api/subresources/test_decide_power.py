"""start, stop and restart for every run strategy: the patches, or KubeVirt's refusals."""

from __future__ import annotations

from typing import Any

import pytest

from qvirt_api.subresources import decide_power
from qvirt_api.subresources.errors import StatusError
from qvirt_api.subresources.options import RestartOptions, StartOptions, StopOptions, decode
from qvirt_api.subresources.views import Instance, Machine

Object = dict[str, Any]
STOP = {"action": "Stop", "uid": "u"}
START = {"action": "Start"}
REQUESTS = "/status/stateChangeRequests"


def vm(strategy: str = "", running: bool | None = None, **status: object) -> Machine:
    spec: Object = {"runStrategy": strategy} if strategy else {"running": running}
    return Machine(
        {
            "metadata": {"name": "vm", "namespace": "ns"},
            "spec": spec,
            "status": {"created": True, **status},
        }
    )


def vmi(phase: str = "Running", grace: int | None = None) -> Instance:
    spec = {} if grace is None else {"terminationGracePeriodSeconds": grace}
    metadata = {"name": "vm", "namespace": "ns", "uid": "u"}
    return Instance({"metadata": metadata, "spec": spec, "status": {"phase": phase}})


def asked(patches: tuple[decide_power.Patch, ...]) -> Object | list[Object]:
    """The requests that are left, or the run strategy that is set."""
    last = patches[-1]
    put = next(o for o in last.operations if o["op"] == "add")
    found: Object | list[Object] = put["value"]
    assert (last.target == "status") == isinstance(found, list)
    return found


STARTS: list[tuple[Machine, Instance | None, Object, object]] = [
    (vm("Halted"), None, {}, "Always"),
    (vm(running=False), None, {}, True),
    (vm("Halted"), vmi("Succeeded"), {}, "Always"),
    (vm("Halted"), None, {"paused": True}, [{"action": "Start", "data": {"paused": "true"}}]),
    (vm("Manual"), None, {}, [START]),
    (vm("Manual"), vmi("Failed"), {}, [STOP, START]),
    (vm("Manual"), vmi("Succeeded"), {}, [STOP, START]),
    (vm("RerunOnFailure"), vmi("Succeeded"), {}, [STOP, START]),
    (vm("RerunOnFailure"), None, {"paused": True}, [{**START, "data": {"paused": "true"}}]),
    (vm("RerunOnFailure"), vmi("Failed"), {}, "does not support starting VM from failed state"),
    (vm("Always"), None, {}, "Always does not support manual start requests"),
    (vm("Once"), None, {}, "Once does not support manual start requests"),
    (vm("Manual"), vmi("Running"), {}, "VM is already running"),
    (vm("Halted"), vmi("Scheduling"), {}, "VM is already running"),
    (vm("Manual"), vmi(""), {}, [START]),
]


@pytest.mark.parametrize(("machine", "instance", "options", "expected"), STARTS)
def test_start(
    machine: Machine, instance: Instance | None, options: Object, expected: object
) -> None:
    check(
        lambda: decide_power.start(machine, instance, StartOptions(**options)), expected, "Always"
    )


STOPS: list[tuple[Machine, Instance | None, Object, object]] = [
    (vm("Always"), vmi(), {}, "Halted"),
    (vm(running=True), vmi(), {}, False),
    (vm("Once"), None, {}, "Halted"),
    (vm("Manual"), vmi(), {}, [STOP]),
    (vm("RerunOnFailure"), vmi("Scheduling"), {}, [STOP]),
    (vm("Manual"), None, {}, "VM is not running"),
    (vm("Manual"), vmi("Failed"), {}, "VM is not running"),
    (vm("Halted"), None, {}, "VM is not running"),
    (vm("Halted"), vmi(grace=30), {}, "Halted only supports manual stop requests with a shorter"),
    (vm("Halted"), vmi(grace=30), {"grace_period": 30}, "with a shorter graceperiod"),
    (vm("Halted"), vmi(grace=30), {"grace_period": 5}, [STOP]),
    (vm("Halted"), vmi(), {"grace_period": 0}, [STOP]),
    (vm("Manual"), vmi(), {"grace_period": -1}, "gracePeriod has to be greater or equal to 0"),
]


@pytest.mark.parametrize(("machine", "instance", "options", "expected"), STOPS)
def test_stop(
    machine: Machine, instance: Instance | None, options: Object, expected: object
) -> None:
    check(lambda: decide_power.stop(machine, instance, StopOptions(**options)), expected, "Halted")


RESTARTS: list[tuple[Machine, Instance | None, Object, object]] = [
    (vm("Always"), vmi(), {}, [STOP, START]),
    (vm("Manual"), vmi(), {"grace_period_seconds": 0}, [STOP, START]),
    (vm("Halted"), vmi(), {}, "RunStategy Halted does not support manual restart requests"),
    (vm("Once"), vmi(), {}, "RunStategy Once does not support manual restart requests"),
    (vm("Always"), None, {}, "VM is not running: Halted"),
    (vm("Always"), vmi(), {"grace_period_seconds": 9}, "only gracePeriod=0 is supported for now"),
    (vm("Always"), vmi(), {"grace_period_seconds": -1}, "has to be greater or equal to 0"),
]


@pytest.mark.parametrize(("machine", "instance", "options", "expected"), RESTARTS)
def test_restart(
    machine: Machine, instance: Instance | None, options: Object, expected: object
) -> None:
    check(lambda: decide_power.restart(machine, instance, RestartOptions(**options)), expected, "")


def check(decide: Any, expected: object, strategy: str) -> None:
    if isinstance(expected, str) and expected != strategy:
        with pytest.raises(StatusError) as caught:
            decide()
        assert expected in caught.value.message
        assert caught.value.code in (400, 409)
        return
    assert asked(decide()) == expected


def test_a_strategy_is_changed_only_from_what_was_seen() -> None:
    (patch,) = decide_power.start(vm(running=False), None, StartOptions())
    assert patch.target == "machine"
    assert patch.operations == (
        {"op": "test", "path": "/spec/running", "value": False},
        {"op": "add", "path": "/spec/running", "value": True},
    )


def test_the_grace_period_is_changed_first_and_only_of_this_instance() -> None:
    hurry, _ = decide_power.stop(vm("Manual"), vmi(grace=60), StopOptions(grace_period=3))
    assert hurry.target == "instance"
    assert hurry.operations == (
        {"op": "test", "path": "/metadata/uid", "value": "u"},
        {"op": "add", "path": "/spec/terminationGracePeriodSeconds", "value": 3},
    )
    hurry, _ = decide_power.restart(vm("Always"), vmi(), RestartOptions(grace_period_seconds=0))
    assert hurry.operations[1]["value"] == 1


def test_requests_that_wait_are_in_the_way_of_all_but_a_lone_stop() -> None:
    waiting = vm("Manual", stateChangeRequests=[START])
    with pytest.raises(StatusError, match="stop/start already underway") as caught:
        decide_power.restart(waiting, vmi(), RestartOptions())
    assert caught.value.code == 500
    (patch,) = decide_power.stop(waiting, vmi(), StopOptions())
    assert patch.operations == (
        {"op": "test", "path": REQUESTS, "value": [START]},
        {"op": "add", "path": REQUESTS, "value": [STOP]},
    )


def test_a_request_ends_the_back_off() -> None:
    failing = vm("RerunOnFailure", startFailure={"consecutiveFailCount": 3})
    (patch,) = decide_power.start(failing, None, StartOptions())
    assert patch.operations[-1] == {"op": "remove", "path": "/status/startFailure"}


def test_a_machine_without_status_gets_one() -> None:
    metadata = {"name": "vm", "namespace": "ns", "resourceVersion": "7"}
    bare = Machine({"metadata": metadata, "spec": {"runStrategy": "Manual"}})
    (patch,) = decide_power.start(bare, None, StartOptions())
    assert patch.operations == (
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/status", "value": {"stateChangeRequests": [START]}},
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"  \n", b"null", b"{}", b'{"unknown": 1}', b'{"gracePeriod": null}', b"# YAML\n{}"],
)
def test_bodies_are_optional(body: bytes) -> None:
    assert decode(body, StopOptions) == StopOptions()


def test_bodies_may_be_yaml() -> None:
    assert decode(b"gracePeriod: 7\ndryRun: [All]\n", StopOptions).grace_period == 7
    assert decode(b"gracePeriod: 7\ndryRun: [All]\n", StopOptions).is_dry


@pytest.mark.parametrize("body", [b"[1]", b"{", b'{"gracePeriod": "soon"}', b"a: b: c"])
def test_bodies_that_make_no_sense(body: bytes) -> None:
    with pytest.raises(StatusError, match="Can not unmarshal Request body to struct") as caught:
        decode(body, StopOptions)
    assert caught.value.code == 400
