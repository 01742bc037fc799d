"""What to do for a VirtualMachineInstance (pure): its launcher pod, its phase, its conditions, its end.

Phases (reference: KubeVirt's, section 3.1)::

    ""/Pending -> Scheduling (a pod exists) -> Scheduled (handed over to virt-handler) -> Running (by virt-handler)
    any of them -> Succeeded | Failed (the compute container has ended, or the pod is gone)
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from qvirt_crds.model import Model
from qvirt_crds.names import RUNTIME_UID
from qvirt_crds.status import FINAL
from qvirt_operator.conditions import condition, merge_patch, merged
from qvirt_operator.decisions import Event, Failure, Target
from qvirt_operator.pods import DEFAULT_GRACE_SECONDS, POD_GRACE_MARGIN, READINESS_GATE
from qvirt_operator.views import Condition, Object, Pod, Vmi, timestamp

#: Keeps an instance until its pod is gone: else a guest could run that no object stands for.
FINALIZER: Final = "kubevirt.io/foregroundDeleteVirtualMachine"
#: Of KubeVirt's; we do not wait for them, so instances that bring them must not wait either.
OLD_FINALIZERS: Final = (
    "foregroundDeleteVirtualMachine",
    "kubevirt.io/virtualMachineControllerFinalize",
)
NODE_LABEL: Final = "kubevirt.io/nodeName"

#: How long the helpers of a pod may outlive its guest. The launcher ends them; one that was killed can't.
HELPERS_OUTLIVE: Final = timedelta(seconds=15)
_CLAIM_RETRY: Final = 5.0
_PULL_FAILURES: Final = ("ErrImagePull", "ImagePullBackOff")


class Seen:
    """All that is observed of one instance.

    :param pods: its launcher pods.
    :param missing_claims: claims that its volumes name and that are not there.
    :param facts: status fields that follow from the spec alone.
    :param failure: why the spec makes no pod, or what went wrong when this was decided on a moment ago.
    """

    def __init__(
        self,
        vmi: Vmi,
        now: datetime,
        *,
        pods: tuple[Pod, ...] = (),
        missing_claims: tuple[str, ...] = (),
        facts: Object | None = None,
        failure: Failure | None = None,
    ) -> None:
        self.vmi = vmi
        self.now = now
        self.pods = pods
        self.missing_claims = missing_claims
        self.facts = facts or {}
        self.failure = failure

    @property
    def pod(self) -> Pod | None:
        """The pod that counts: one that is not finished before one that is."""
        return min(self.pods, key=lambda pod: (pod.finished, pod.metadata.name), default=None)


class VmiDecision(Model, frozen=True, kw_only=True):
    """What is to be done, in this order."""

    #: A merge patch of the instance; empty: nothing to write.
    patch: Object = {}
    create_pod: bool = False
    #: (pod's name, its readiness gate's condition)
    pod_condition: tuple[str, Object] | None = None
    delete_pods: tuple[Target, ...] = ()
    #: Told when all of the above is done.
    events: tuple[Event, ...] = ()
    #: Look again after so many seconds, even if nothing happens.
    again: float | None = None


def decide_vmi(seen: Seen) -> VmiDecision:
    """The next step. Applied again and again, with the world moving on, it ends in a decision that does nothing."""
    vmi, pod = seen.vmi, seen.pod
    phase = _next_phase(seen)
    reason = _end_reason(pod) if phase == "Failed" and vmi.phase != phase else None
    doomed = _pods_to_delete(seen, phase)
    create = _creating(seen, phase) and FINALIZER in vmi.metadata.finalizers
    return VmiDecision(
        patch=_patch(seen, phase, reason),
        create_pod=create,
        pod_condition=_pod_condition(vmi, pod, timestamp(seen.now)),
        delete_pods=doomed,
        events=tuple(_events(seen, phase)),
        again=_again(seen, phase),
    )


def _creating(seen: Seen, phase: str) -> bool:
    return (
        seen.pod is None
        and phase == "Pending"
        and seen.failure is None
        and not seen.missing_claims
        and not seen.vmi.metadata.deleting
    )


def _next_phase(seen: Seen) -> str:
    """One step at most, so that every phase gets its time."""
    vmi, pod = seen.vmi, seen.pod
    if vmi.final:
        return vmi.phase
    if vmi.phase in ("", "Pending"):
        if vmi.metadata.deleting:
            return "Failed"
        return "Pending" if pod is None else "Scheduling"
    if pod is None:
        return "Failed"
    if pod.ended is not None:
        return "Succeeded" if pod.ended.exit_code == 0 else "Failed"
    if pod.finished:
        return pod.status.phase
    if vmi.phase == "Scheduling":
        if pod.metadata.deleting:
            return "Failed"
        return "Scheduled" if _handed_over(pod) else "Scheduling"
    return vmi.phase


def _handed_over(pod: Pod) -> bool:
    """From here on it is virt-handler's: the launcher runs, and so do the holders of its disks."""
    compute = pod.compute
    others = (c for c in pod.status.container_statuses if c.name != "compute")
    return (
        pod.status.phase == "Running"
        and pod.spec.node_name != ""
        and compute is not None
        and compute.state.running is not None
        and all(c.ready for c in others)
    )


def _end_reason(pod: Pod | None) -> str:
    """Why it failed, for ``status.reason``."""
    if pod is None:
        return "PodVanished: the launcher pod is gone, and the guest with it"
    if pod.ended is not None:
        how = pod.ended.reason or "Error"
        what = f"the launcher ended with status {pod.ended.exit_code}"
        said = pod.ended.message.strip().splitlines()[-1:] or [""]
        return f"{how}: {what}" + (f": {said[0][:500]}" if said[0] else "")
    if pod.status.reason or pod.status.message:
        return f"{pod.status.reason or 'PodFailed'}: {pod.status.message}"
    return "PodDeleted: the launcher pod was deleted before the guest ran"


def _patch(seen: Seen, phase: str, reason: str | None) -> Object:
    vmi = seen.vmi
    metadata = _metadata_patch(seen)
    status = merge_patch(vmi.raw, _status(seen, phase, reason))
    label = status.get("nodeName")
    if label:
        metadata["labels"] = {NODE_LABEL: label}
    patch: Object = {}
    if metadata:
        patch["metadata"] = metadata
    if status:
        patch["status"] = status
    return patch


def _metadata_patch(seen: Seen) -> Object:
    metadata = seen.vmi.metadata
    kept = [name for name in metadata.finalizers if name not in OLD_FINALIZERS]
    if metadata.deleting:
        if not seen.pods:
            kept = [name for name in kept if name != FINALIZER]
    elif FINALIZER not in kept:
        kept.append(FINALIZER)
    return {"finalizers": kept} if kept != list(metadata.finalizers) else {}


def _status(seen: Seen, phase: str, reason: str | None) -> Object:
    """The fields that are ours (`qvirt_crds.status`), as they ought to be."""
    vmi, pod, now = seen.vmi, seen.pod, timestamp(seen.now)
    status: Object = {"phase": phase}
    if phase != vmi.phase:
        before = vmi.raw.get("phaseTransitionTimestamps")
        known = (
            [item for item in before if isinstance(item, dict)] if isinstance(before, list) else []
        )
        entry = {"phase": phase, "phaseTransitionTimestamp": now}
        status["phaseTransitionTimestamps"] = [*known, entry]
    if reason is not None:
        status["reason"] = reason
    if phase == "Pending":
        status |= {"runtimeUser": RUNTIME_UID, **seen.facts}
    if pod is not None and phase not in FINAL and pod.status.qos_class:
        status["qosClass"] = pod.status.qos_class
    if phase == "Scheduled" and pod is not None and pod.compute is not None:
        status["nodeName"] = pod.spec.node_name
        status["launcherContainerImageVersion"] = pod.compute.image
    if phase not in ("Pending", ""):
        status["activePods"] = {
            p.metadata.uid: p.spec.node_name for p in seen.pods if not p.finished
        }
    status["conditions"] = merged(vmi.raw.get("conditions"), _conditions(seen, phase), now)
    return status


def _conditions(seen: Seen, phase: str) -> dict[str, Condition | None]:
    conditions = {"Ready": _ready(seen.pod, phase), "PodScheduled": _pod_scheduled(seen)}
    if _creating(seen, phase):
        # What went wrong the last time stands until it goes well: taking it back first would be two writes a try.
        return conditions
    return {**conditions, "Synchronized": _synchronized(seen, phase)}


def _ready(pod: Pod | None, phase: str) -> Condition:
    if pod is None:
        message = "virt-launcher pod has not yet been scheduled"
        return condition("Ready", False, "PodNotExists", message)
    if pod.metadata.deleting:
        return condition("Ready", False, "PodTerminating", "virt-launcher pod is terminating")
    if phase != "Running":
        message = "Guest VM is not reported as running"
        return condition("Ready", False, "GuestNotRunning", message)
    message = "virt-launcher pod is missing the Ready condition"
    return pod.condition("Ready") or condition("Ready", False, "PodConditionMissing", message)


def _pod_scheduled(seen: Seen) -> Condition | None:
    if seen.pod is not None:
        scheduled = seen.pod.condition("PodScheduled")
        return scheduled if scheduled is not None and scheduled.status == "False" else None
    if seen.missing_claims and not seen.vmi.final:
        return condition("PodScheduled", False, "Unschedulable", _missing(seen))
    return None


def _synchronized(seen: Seen, phase: str) -> Condition | None:
    """Only there while something is wrong."""
    if phase in FINAL:
        return None
    if seen.failure is not None:
        return condition("Synchronized", False, seen.failure.reason, seen.failure.message)
    if seen.pod is None:
        if not seen.missing_claims:
            return None
        return condition("Synchronized", False, "FailedPvcNotFound", _missing(seen))
    status = seen.pod.status
    for container in (*status.init_container_statuses, *status.container_statuses):
        waiting = container.state.waiting
        if waiting is not None and waiting.reason in _PULL_FAILURES:
            return condition("Synchronized", False, waiting.reason, waiting.message)
    return None


def _missing(seen: Seen) -> str:
    namespace = seen.vmi.metadata.namespace
    return "; ".join(
        f"PVC {namespace}/{claim} does not exist, waiting for it to appear"
        for claim in seen.missing_claims
    )


def _pod_condition(vmi: Vmi, pod: Pod | None, now: str) -> tuple[str, Object] | None:
    """A paused guest does not answer: its pod must drop out of Services."""
    if pod is None or pod.finished or pod.metadata.deleting:
        return None
    paused = vmi.condition("Paused")
    running = paused is None or paused.status != "True"
    have = pod.condition(READINESS_GATE)
    if have is not None and have.status == str(running):
        return None
    wanted = {
        "type": READINESS_GATE,
        "status": str(running),
        "reason": "NotPaused" if running else "Paused",
        "message": "the virtual machine is not paused"
        if running
        else "the virtual machine is paused",
        "lastTransitionTime": now,
    }
    return pod.metadata.name, wanted


def _pods_to_delete(seen: Seen, phase: str) -> tuple[Target, ...]:
    if seen.vmi.metadata.deleting:
        doomed = [pod for pod in seen.pods if not _is_ending(pod, _pod_grace(seen.vmi))]
    elif phase in FINAL:
        doomed = [
            pod for pod in seen.pods if not pod.metadata.deleting and _helpers_linger(pod, seen.now)
        ]
    else:
        doomed = []
    return tuple(
        Target(name=pod.metadata.name, uid=pod.metadata.uid, grace_seconds=_pod_grace(seen.vmi))
        for pod in doomed
    )


def _is_ending(pod: Pod, grace: int) -> bool:
    """Deleted already, and not later than the instance's grace period says (which a forced stop shortens)."""
    given = pod.metadata.deletion_grace_period_seconds
    return pod.metadata.deleting and (given is None or given <= grace)


def _pod_grace(vmi: Vmi) -> int:
    spec = vmi.data.get("spec")
    grace = spec.get("terminationGracePeriodSeconds") if isinstance(spec, dict) else None
    seconds = grace if isinstance(grace, int) and grace >= 0 else DEFAULT_GRACE_SECONDS
    return seconds + POD_GRACE_MARGIN


def _helpers_linger(pod: Pod, now: datetime) -> bool:
    return (
        not pod.finished
        and pod.ended is not None
        and pod.ended.finished_at is not None
        and now - pod.ended.finished_at > HELPERS_OUTLIVE
    )


def _events(seen: Seen, phase: str) -> list[Event]:
    vmi, events = seen.vmi, []
    if seen.missing_claims and seen.pod is None and not vmi.final:
        had = vmi.condition("Synchronized")
        if had is None or had.reason != "FailedPvcNotFound":
            events.append(Event(reason="FailedPvcNotFound", message=_missing(seen)))
    if phase != vmi.phase and vmi.phase not in ("", "Pending"):
        if phase == "Succeeded":
            message = "The VirtualMachineInstance was shut down."
            events.append(Event(reason="Stopped", message=message))
        if phase == "Failed":
            message = "The VirtualMachineInstance crashed."
            events.append(Event(type="Warning", reason="Stopped", message=message))
    return events


def _again(seen: Seen, phase: str) -> float | None:
    if seen.pod is None and phase == "Pending" and seen.missing_claims:
        return _CLAIM_RETRY
    if phase in FINAL and any(not p.finished and not p.metadata.deleting for p in seen.pods):
        return HELPERS_OUTLIVE.total_seconds() + 1
    return None
