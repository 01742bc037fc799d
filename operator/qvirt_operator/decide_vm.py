"""What to do for a VirtualMachine (pure): by its run strategy, create, delete or leave its instance; and say how it is.

The table of strategies is KubeVirt's (reference, section 3.6)::

    strategy        no instance                        instance has ended
    Always          create (after a back-off)          delete (then create)
    RerunOnFailure  create if asked or just set        delete; Failed: ask for a start
    Manual          create if asked                    leave
    Once            create                             leave
    Halted          nothing                            delete
"""

from __future__ import annotations

from typing import Final

from qvirt_crds.model import Model
from qvirt_operator import vm_requests
from qvirt_operator.decisions import Event, Target
from qvirt_operator.printable import settles_in
from qvirt_operator.views import Object
from qvirt_operator.vm_backoff import count_failures, wait
from qvirt_operator.vm_requests import asks
from qvirt_operator.vm_seen import Seen, Vm
from qvirt_operator.vm_status import GENERATION, Plan, status_patch

FINALIZER: Final = "kubevirt.io/virtualMachineControllerFinalize"
#: Finalizer of an object that is deleted without its dependents.
ORPHAN: Final = "orphan"


class VmDecision(Model, frozen=True, kw_only=True):
    """What is to be done, in this order."""

    #: A merge patch of the VM; empty: nothing to write.
    patch: Object = {}
    #: UID of an instance without owner to take over.
    adopt: str = ""
    create: bool = False
    #: A merge patch of the status.
    status: Object = {}
    delete: Target | None = None
    #: The generation that the running instance is up to date with.
    restamp: int | None = None
    again: float | None = None


def decide_vm(seen: Seen) -> VmDecision:
    """The next step."""
    vm = seen.vm
    if vm.metadata.deleting:
        return _decide_deletion(seen)
    if FINALIZER not in vm.metadata.finalizers:
        return VmDecision(patch={"metadata": {"finalizers": [*vm.metadata.finalizers, FINALIZER]}})
    if seen.orphan is not None:
        return VmDecision(adopt=seen.orphan.metadata.uid)
    failures = count_failures(seen)
    requests = vm_requests.pending(seen)
    patience = wait(failures, seen.now)
    wants = wants_instance(seen, requests)
    create = wants and patience is None and seen.found is None and seen.failure is None
    delete = _deletes(seen, requests)
    plan = Plan(
        failures=failures,
        requests=vm_requests.after(seen, requests, delete),
        wants=wants,
        creating=create,
        stopping=delete is not None,
    )
    return VmDecision(
        patch=_flip(vm) if _flips(seen, requests) else {},
        create=create,
        status=status_patch(seen, plan),
        delete=delete,
        restamp=_restamp(seen),
        again=patience if wants else settles_in(seen.vmi, seen.now),
    )


def _decide_deletion(seen: Seen) -> VmDecision:
    """The instance goes first, so that a VM of the same name can be made when this one is gone."""
    vm, vmi = seen.vm, seen.vmi
    if ORPHAN in vm.metadata.finalizers:
        # The garbage collector takes the VM out of the instance's owners first; then the instance is not ours.
        return VmDecision()
    if vmi is None:
        kept = [name for name in vm.metadata.finalizers if name != FINALIZER]
        if len(kept) == len(vm.metadata.finalizers):
            return VmDecision()
        return VmDecision(patch={"metadata": {"finalizers": kept}})
    target = Target(name=vmi.metadata.name, uid=vmi.metadata.uid)
    status = status_patch(seen, Plan(stopping=True))
    return VmDecision(status=status, delete=None if vmi.metadata.deleting else target)


def wants_instance(seen: Seen, requests: list[Object]) -> bool:
    """Whether there ought to be an instance now and is none (back-off apart)."""
    if seen.found is not None:
        return False
    asked = asks(requests, "Start")
    match seen.vm.strategy:
        case "Always" | "Once":
            return True
        case "RerunOnFailure":
            return asked or seen.vm.status.run_strategy != "RerunOnFailure"
        case "Manual":
            return asked
        case _:
            return False


def _deletes(seen: Seen, requests: list[Object]) -> Target | None:
    vmi = seen.vmi
    if vmi is None or vmi.metadata.deleting:
        return None
    stop, start = asks(requests, "Stop"), asks(requests, "Start")
    match seen.vm.strategy:
        case "Halted":
            doomed = True
        case "Always" | "RerunOnFailure":
            doomed = stop or vmi.final
        case "Manual":
            doomed = stop or (start and vmi.final)
        case _:
            doomed = stop
    return Target(name=vmi.metadata.name, uid=vmi.metadata.uid) if doomed else None


def _flips(seen: Seen, requests: list[Object]) -> bool:
    """A start of a halted VM means: from now on, always."""
    return asks(requests, "Start") and seen.vm.strategy == "Halted" and seen.found is None


def _flip(vm: Vm) -> Object:
    if "running" in vm.data["spec"]:
        return {"spec": {"running": True}}
    return {"spec": {"runStrategy": "Always"}}


def _restamp(seen: Seen) -> int | None:
    """The VM changed, its template did not: the instance is up to date with the new generation as well."""
    vmi, generation = seen.vmi, seen.vm.metadata.generation
    if vmi is None or vmi.final or vmi.metadata.deleting or seen.template_changed:
        return None
    stamped = vmi.metadata.annotations.get(GENERATION)
    return generation if stamped != str(generation) else None


def created_event(name: str) -> Event:
    """Of a VM whose instance was made."""
    message = f"Started the virtual machine by creating the new virtual machine instance {name}"
    return Event(reason="SuccessfulCreate", message=message)


def deleted_event(name: str, uid: str) -> Event:
    """Of a VM whose instance is being stopped."""
    message = f"Stopped the virtual machine by deleting the virtual machine instance {name} ({uid})"
    return Event(reason="SuccessfulDelete", message=message)
