"""start, stop and restart of a VirtualMachine (pure): which patches, or why not.

virt-controller acts on what they leave behind: another run strategy, or ``status.stateChangeRequests``.
The rules are KubeVirt's (reference, sections 3.6 and 5.3).
"""

from __future__ import annotations

from typing import Final, Literal

from qvirt_api.subresources.errors import StatusError, bad_request, conflict, internal
from qvirt_api.subresources.options import RestartOptions, StartOptions, StopOptions
from qvirt_api.subresources.views import Instance, Machine
from qvirt_crds.meta import JsonObject as Object
from qvirt_crds.model import Model

#: What a patch is for: the VirtualMachine, its status, or its instance.
Target = Literal["machine", "status", "instance"]

_NOT_RUNNING: Final = "VM is not running"


class Patch(Model, frozen=True, kw_only=True):
    """A JSON patch; its ``test`` operations make it fail when somebody was faster."""

    target: Target
    operations: tuple[Object, ...]


def start(vm: Machine, vmi: Instance | None, options: StartOptions) -> tuple[Patch, ...]:
    """:raise StatusError: it can't be started now, or not by hand."""
    if vmi is not None and not vmi.final and vmi.phase:
        raise _refused(vm, "VM is already running")
    request: Object = {"action": "Start"}
    if options.paused:
        request["data"] = {"paused": "true"}
    match vm.strategy:
        case "Halted":
            return (_ask(vm, request),) if options.paused else (_run(vm, "Always"),)
        case "RerunOnFailure" if vmi is not None and vmi.phase == "Failed":
            raise _refused(vm, "RerunOnFailure does not support starting VM from failed state")
        case "RerunOnFailure" | "Manual":
            if vmi is not None and vmi.final:
                return (_ask(vm, _stop_of(vmi), request),)
            return (_ask(vm, request),)
        case strategy:
            raise _refused(vm, f"{strategy} does not support manual start requests")


def stop(vm: Machine, vmi: Instance | None, options: StopOptions) -> tuple[Patch, ...]:
    """:raise StatusError: there is nothing to stop, or it is stopping as fast already."""
    grace = options.grace_period
    if grace is not None and grace < 0:
        raise bad_request("gracePeriod has to be greater or equal to 0")
    alive = vmi if vmi is not None and not vmi.final else None
    hurry = (_give(alive, grace),) if alive is not None and grace is not None else ()
    match vm.strategy:
        case "Always" | "Once":
            return (*hurry, _run(vm, "Halted"))
        case "RerunOnFailure" | "Manual":
            if alive is None:
                raise _refused(vm, _NOT_RUNNING)
            return (*hurry, _ask(vm, _stop_of(alive)))
        case "Halted":
            if alive is None:
                raise _refused(vm, _NOT_RUNNING)
            if grace is None or (alive.grace_seconds is not None and grace >= alive.grace_seconds):
                text = "Halted only supports manual stop requests with a shorter graceperiod"
                raise _refused(vm, text)
            return (*hurry, _ask(vm, _stop_of(alive)))
        case strategy:
            raise _refused(vm, f"{strategy} does not support manual stop requests")


def restart(vm: Machine, vmi: Instance | None, options: RestartOptions) -> tuple[Patch, ...]:
    """:raise StatusError: nothing runs, or the strategy knows no restart."""
    grace = options.grace_period_seconds
    if grace is not None and grace < 0:
        raise bad_request("gracePeriod has to be greater or equal to 0")
    if grace:
        raise bad_request("For force restart, only gracePeriod=0 is supported for now")
    if vm.strategy in ("Halted", "Once"):
        text = f"RunStategy {vm.strategy} does not support manual restart requests"
        raise _refused(vm, text)
    if vmi is None:
        raise _refused(vm, "VM is not running: Halted")
    # One second, not none: with none the guest's end would count as a clean shutdown (reference, section 3.1).
    hurry = (_give(vmi, 1),) if grace == 0 and not vmi.final else ()
    return (*hurry, _ask(vm, _stop_of(vmi), {"action": "Start"}))


def _refused(vm: Machine, text: str) -> StatusError:
    return conflict("virtualmachine", vm.name, text)


def _stop_of(vmi: Instance) -> Object:
    return {"action": "Stop", "uid": vmi.uid}


def _give(vmi: Instance, grace: int) -> Patch:
    path = "/spec/terminationGracePeriodSeconds"
    # `add` also replaces.
    return Patch(
        target="instance",
        operations=(
            {"op": "test", "path": "/metadata/uid", "value": vmi.uid},
            {"op": "add", "path": path, "value": grace},
        ),
    )


def _run(vm: Machine, strategy: Literal["Always", "Halted"]) -> Patch:
    """The other run strategy, in the field that the VirtualMachine uses."""
    key = "runStrategy" if vm.spec.get("runStrategy") else "running"
    value = strategy if key == "runStrategy" else strategy == "Always"
    path, before = f"/spec/{key}", vm.spec.get(key)
    test: Object = {"op": "test", "path": path, "value": before}
    put: Object = {"op": "add", "path": path, "value": value}
    return Patch(target="machine", operations=(test, put))


def _ask(vm: Machine, *requests: Object) -> Patch:
    """Leave requests for virt-controller. A lone stop takes the place of whatever was asked before."""
    path, before = "/status/stateChangeRequests", vm.requests
    if before and not (len(requests) == 1 and requests[0]["action"] == "Stop"):
        raise internal("unable to complete request: stop/start already underway")
    if not vm.status:
        seen: Object = {
            "op": "test",
            "path": "/metadata/resourceVersion",
            "value": vm.resource_version,
        }
        status: Object = {"stateChangeRequests": [*requests]}
        put: Object = {"op": "add", "path": "/status", "value": status}
        return Patch(target="status", operations=(seen, put))
    test: Object = {"op": "test", "path": path, "value": vm.status.get("stateChangeRequests")}
    put = {"op": "add", "path": path, "value": [*requests]}
    return Patch(target="status", operations=(test, put, *_forget_failures(vm)))


def _forget_failures(vm: Machine) -> tuple[Object, ...]:
    """Who asks by hand does not wait for a back-off."""
    if vm.status.get("startFailure") is None:
        return ()
    return ({"op": "remove", "path": "/status/startFailure"},)
