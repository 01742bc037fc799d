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

from datetime import datetime, timedelta
from typing import Final

from qvirt_crds.model import Model
from qvirt_operator.conditions import condition, merge_patch, merged
from qvirt_operator.decisions import Event, Failure, Target
from qvirt_operator.printable import printable_status
from qvirt_operator.views import (
    Condition,
    Meta,
    Object,
    View,
    Vmi,
    convert,
    lenient,
    status_of,
    timestamp,
)

FINALIZER: Final = "kubevirt.io/virtualMachineControllerFinalize"
GENERATION: Final = "kubevirt.io/vm-generation"
#: Strategies that start a guest by themselves, and so must not do it in a tight loop.
STARTING: Final = ("Always", "RerunOnFailure", "Once")
_ORPHAN: Final = "orphan"
_BACKOFF_FACTOR: Final = 10.0
_BACKOFF_CAP: Final = 300.0
_RERUN: Final[Object] = {"action": "Start", "data": {"rerun": "true"}}
_OWN: Final = ("Ready", "Failure", "RestartRequired")


class Request(View, frozen=True, kw_only=True):
    """What a user asked of the subresource API."""

    action: str = ""
    uid: str = ""
    data: dict[str, str] = {}

    @property
    def by_us(self) -> bool:
        """Not a user's, but the rerun of a guest that failed."""
        return bool(self.data == _RERUN["data"])


class VmStatus(View, frozen=True, kw_only=True):
    """status of a VirtualMachine."""

    run_strategy: str = ""
    state_change_requests: tuple[Request, ...] = ()


class Vm:
    """A VirtualMachine, with what we look at decoded."""

    def __init__(self, data: Object) -> None:
        self.data = data
        self.metadata = convert(data.get("metadata") or {}, Meta)
        self.raw: Object = status_of(data)
        self.status = lenient(self.raw, VmStatus)

    @property
    def strategy(self) -> str:
        spec = self.data["spec"]
        if spec.get("runStrategy"):
            return str(spec["runStrategy"])
        return "Always" if spec.get("running") else "Halted"


class Seen:
    """All that is observed of one VirtualMachine.

    :param vmi: the instance of its name, whoever owns it.
    :param template_changed: the template is not the one that the instance was made of.
    :param jitter: a random number, 0 <= jitter < 1.
    :param failure: what went wrong when this was decided on a moment ago.
    """

    def __init__(
        self,
        vm: Vm,
        vmi: Vmi | None,
        now: datetime,
        *,
        template_changed: bool = False,
        jitter: float = 0.0,
        failure: Failure | None = None,
    ) -> None:
        self.vm = vm
        self.found = vmi
        self.now = now
        self.template_changed = template_changed
        self.jitter = jitter
        self.failure = failure

    @property
    def vmi(self) -> Vmi | None:
        """The instance, if it is this VM's."""
        if self.found is None:
            return None
        owner = self.found.metadata.controller
        return self.found if owner and owner.uid == self.vm.metadata.uid else None

    @property
    def orphan(self) -> Vmi | None:
        """An instance of the VM's name that nobody owns: left behind by a VM that was deleted without it."""
        found = self.found
        if found is None or found.metadata.controller or found.metadata.deleting:
            return None
        return found


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


class Failures(Model, frozen=True, kw_only=True):
    """The back-off: how often, of whom last, and until when."""

    count: int = 0
    uid: str = ""
    until: datetime | None = None


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
    requests = _pending_requests(seen)
    wait = _wait(failures, seen.now)
    wants = wants_instance(seen, requests)
    create = wants and wait is None and seen.found is None and seen.failure is None
    delete = _deletes(seen, requests)
    return VmDecision(
        patch=_flip(vm) if _flips(seen, requests) else {},
        create=create,
        status=_status(seen, failures, _after(seen, requests, delete), create, delete),
        delete=delete,
        restamp=_restamp(seen),
        again=wait if wants else None,
    )


def _decide_deletion(seen: Seen) -> VmDecision:
    """The instance goes first, so that a VM of the same name can be made when this one is gone."""
    vm, vmi = seen.vm, seen.vmi
    if _ORPHAN in vm.metadata.finalizers:
        # The garbage collector takes the VM out of the instance's owners first; then the instance is not ours.
        return VmDecision()
    if vmi is None:
        kept = [name for name in vm.metadata.finalizers if name != FINALIZER]
        if len(kept) == len(vm.metadata.finalizers):
            return VmDecision()
        return VmDecision(patch={"metadata": {"finalizers": kept}})
    target = Target(name=vmi.metadata.name, uid=vmi.metadata.uid)
    status = _status(seen, Failures(), [], create=False, delete=target)
    return VmDecision(status=status, delete=None if vmi.metadata.deleting else target)


def wants_instance(seen: Seen, requests: list[Object]) -> bool:
    """Whether there ought to be an instance now and is none (back-off apart)."""
    if seen.found is not None:
        return False
    asked = any(request.get("action") == "Start" for request in requests)
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
    stop = any(r.get("action") == "Stop" for r in requests)
    start = any(r.get("action") == "Start" for r in requests)
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


def _pending_requests(seen: Seen) -> list[Object]:
    """Without those that are done. They are done in their order: a restart's Start waits for its Stop."""
    raw = seen.vm.raw.get("stateChangeRequests")
    pending = [r for r in raw if isinstance(r, dict)] if isinstance(raw, list) else []
    while pending and _is_done(seen.vmi, pending[0]):
        del pending[0]
    return pending


def _is_done(vmi: Vmi | None, request: Object) -> bool:
    """A Start when an instance lives, a Stop when its instance is gone."""
    match request.get("action"):
        case "Start":
            return vmi is not None and not vmi.final and not vmi.metadata.deleting
        case "Stop":
            return vmi is None or request.get("uid") != vmi.metadata.uid
        case _:
            return True


def _after(seen: Seen, requests: list[Object], delete: Target | None) -> list[Object]:
    """The requests that remain; a rerun after a failure is one."""
    vmi = seen.vmi
    rerun = (
        seen.vm.strategy == "RerunOnFailure"
        and delete is not None
        and vmi is not None
        and vmi.phase == "Failed"
        and not any(r.get("action") in ("Start", "Stop") for r in requests)
    )
    return [*requests, _RERUN] if rerun else requests


def _flips(seen: Seen, requests: list[Object]) -> bool:
    """A start of a halted VM means: from now on, always."""
    asked = any(request.get("action") == "Start" for request in requests)
    return asked and seen.vm.strategy == "Halted" and seen.found is None


def _flip(vm: Vm) -> Object:
    if "running" in vm.data["spec"]:
        return {"spec": {"running": True}}
    return {"spec": {"runStrategy": "Always"}}


def count_failures(seen: Seen) -> Failures:
    """The back-off after this observation: delay = failures squared times 10 s, and up to half of that more."""
    vm, vmi = seen.vm, seen.vmi
    before = _failures(vm.raw.get("startFailure"))
    asked = any(not request.by_us for request in vm.status.state_change_requests)
    if vm.strategy not in STARTING or asked:
        return Failures()
    if vmi is None:
        return before
    if vmi.has_run:
        return Failures()
    if vmi.phase != "Failed" or vmi.metadata.uid == before.uid or vmi.metadata.deleting:
        return before
    count = before.count + 1
    delay = min(count**2 * _BACKOFF_FACTOR * (1 + seen.jitter / 2), _BACKOFF_CAP)
    until = (seen.now + timedelta(seconds=delay)).replace(microsecond=0)
    return Failures(count=count, uid=vmi.metadata.uid, until=until)


def _failures(raw: object) -> Failures:
    if not isinstance(raw, dict):
        return Failures()
    count, uid, until = (
        raw.get(key) for key in ("consecutiveFailCount", "lastFailedVMIUID", "retryAfterTimestamp")
    )
    if not isinstance(count, int) or not isinstance(uid, str) or not isinstance(until, str):
        return Failures()
    try:
        moment = datetime.fromisoformat(until)
    except ValueError:
        return Failures()
    if moment.tzinfo is None or count < 1:
        return Failures()
    return Failures(count=count, uid=uid, until=moment)


def _wait(failures: Failures, now: datetime) -> float | None:
    """Seconds until the next try may be made; None: now."""
    if failures.until is None or failures.until <= now:
        return None
    return (failures.until - now).total_seconds() + 0.1


def _restamp(seen: Seen) -> int | None:
    """The VM changed, its template did not: the instance is up to date with the new generation as well."""
    vmi, generation = seen.vmi, seen.vm.metadata.generation
    if vmi is None or vmi.final or vmi.metadata.deleting or seen.template_changed:
        return None
    stamped = vmi.metadata.annotations.get(GENERATION)
    return generation if stamped != str(generation) else None


def _status(
    seen: Seen, failures: Failures, requests: list[Object], create: bool, delete: Target | None
) -> Object:
    vm, vmi = seen.vm, seen.vmi
    exists = vmi is not None
    status: Object = {
        "created": exists,
        "ready": vmi is not None and _is_true(vmi.condition("Ready")),
        "printableStatus": printable_status(
            deleting=vm.metadata.deleting,
            vmi=vmi,
            stopping=delete is not None,
            creating=create,
            crash_loop=failures.count > 0 and vm.strategy in STARTING,
        ),
        "desiredGeneration": vm.metadata.generation,
        "stateChangeRequests": requests or None,
        "startFailure": _failures_object(failures),
    }
    if exists or create or (vm.status.run_strategy and not wants_instance(seen, requests)):
        status["runStrategy"] = vm.strategy
    observed = vmi.metadata.annotations.get(GENERATION, "") if vmi else str(vm.metadata.generation)
    if observed.isdecimal():
        status["observedGeneration"] = int(observed)
    before = vm.raw.get("conditions")
    status["conditions"] = merged(before, _conditions(seen, before), timestamp(seen.now))
    return merge_patch(vm.raw, status)


def _failures_object(failures: Failures) -> Object | None:
    if failures.until is None:
        return None
    return {
        "consecutiveFailCount": failures.count,
        "lastFailedVMIUID": failures.uid,
        "retryAfterTimestamp": timestamp(failures.until),
    }


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


def created_event(name: str) -> Event:
    """Of a VM whose instance was made."""
    message = f"Started the virtual machine by creating the new virtual machine instance {name}"
    return Event(reason="SuccessfulCreate", message=message)


def deleted_event(name: str, uid: str) -> Event:
    """Of a VM whose instance is being stopped."""
    message = f"Stopped the virtual machine by deleting the virtual machine instance {name} ({uid})"
    return Event(reason="SuccessfulDelete", message=message)
