"""The status of a VirtualMachine (pure; reference: KubeVirt's, section 3.5)."""

from __future__ import annotations

from typing import Final

from qvirt_crds.model import Model
from qvirt_operator import vm_backoff
from qvirt_operator.conditions import condition, merge_patch, merged
from qvirt_operator.printable import printable_status
from qvirt_operator.views import Condition, Object, Vmi, timestamp
from qvirt_operator.vm_backoff import Failures
from qvirt_operator.vm_seen import STARTING, Seen

#: An instance's annotation: the generation of the VM that it is up to date with.
GENERATION: Final = "kubevirt.io/vm-generation"
_OWN: Final = ("Ready", "Failure", "RestartRequired")


class Plan(Model, frozen=True, kw_only=True):
    """What has been decided, as far as the status tells of it."""

    failures: Failures = Failures()
    #: Those that remain.
    requests: list[Object] = []
    #: There ought to be an instance and is none.
    wants: bool = False
    creating: bool = False
    stopping: bool = False


def status_patch(seen: Seen, plan: Plan) -> Object:
    """A merge patch of the status."""
    vm, vmi = seen.vm, seen.vmi
    status: Object = {
        "created": vmi is not None,
        "ready": vmi is not None and _is_true(vmi.condition("Ready")),
        "printableStatus": printable_status(
            deleting=vm.metadata.deleting,
            vmi=vmi,
            now=seen.now,
            unbound=seen.unbound,
            stopping=plan.stopping,
            creating=plan.creating,
            crash_loop=plan.failures.count > 0 and vm.strategy in STARTING,
        ),
        "desiredGeneration": vm.metadata.generation,
        "stateChangeRequests": plan.requests or None,
        "startFailure": vm_backoff.as_object(plan.failures),
    }
    # Only filled in with the first instance: that is how RerunOnFailure knows that it owes the first start.
    if vmi is not None or plan.creating or (vm.status.run_strategy and not plan.wants):
        status["runStrategy"] = vm.strategy
    observed = vmi.metadata.annotations.get(GENERATION, "") if vmi else str(vm.metadata.generation)
    if observed.isdecimal():
        status["observedGeneration"] = int(observed)
    before = vm.raw.get("conditions")
    status["conditions"] = merged(before, _conditions(seen, before), timestamp(seen.now))
    return merge_patch(vm.raw, status)


def _conditions(seen: Seen, before: object) -> dict[str, Condition | None]:
    """Ours, and those of the instance as they are: all conditions of a VirtualMachine are written here."""
    vmi = seen.vmi
    had = [c.get("type") for c in before if isinstance(c, dict)] if isinstance(before, list) else []
    wanted: dict[str, Condition | None] = {str(kind): None for kind in had if kind not in _OWN}
    if vmi is not None:
        wanted |= {c.type: c for c in vmi.status.conditions}
    wanted["Ready"] = _ready(vmi)
    wanted["Failure"] = (
        condition("Failure", True, seen.failure.reason, seen.failure.message)
        if seen.failure is not None
        else None
    )
    restart = vmi is not None and not vmi.final and seen.template_changed
    message = "a non-live-updatable field was changed in the template spec"
    wanted["RestartRequired"] = condition("RestartRequired", True, "", message) if restart else None
    return wanted


def _ready(vmi: Vmi | None) -> Condition:
    if vmi is None:
        return condition("Ready", False, "VMINotExists", "VMI does not exist")
    message = "VMI is missing the Ready condition"
    return vmi.condition("Ready") or condition("Ready", False, "VMIConditionMissing", message)


def _is_true(found: Condition | None) -> bool:
    return found is not None and found.status == "True"
