"""What to do for a VirtualMachineInstance (pure): its launcher pod, its status, its end."""

from __future__ import annotations

from typing import Final

from qvirt_crds.model import Model
from qvirt_crds.names import FOREGROUND_DELETE, RUNTIME_UID
from qvirt_crds.status import FINAL
from qvirt_operator.conditions import merge_patch, merged
from qvirt_operator.decisions import Event, Target
from qvirt_operator.node_health import failing
from qvirt_operator.views import Object, Pod, timestamp
from qvirt_operator.vmi_conditions import conditions, missing
from qvirt_operator.vmi_phase import (
    IMMINENT,
    UNDECIDED,
    creating,
    end_reason,
    hands_over,
    next_phase,
    runs,
)
from qvirt_operator.vmi_pods import HELPERS_OUTLIVE, pod_condition, pods_to_delete
from qvirt_operator.vmi_seen import Seen
from qvirt_pods.pods import OVERHEAD

#: Keeps an instance until its pod is gone: else a guest could run that no object stands for.
FINALIZER: Final = FOREGROUND_DELETE
#: Of KubeVirt's; we do not wait for them, so instances that bring them must not wait either.
OLD_FINALIZERS: Final = (
    "foregroundDeleteVirtualMachine",
    "kubevirt.io/virtualMachineControllerFinalize",
)
NODE_LABEL: Final = "kubevirt.io/nodeName"

_CLAIM_RETRY: Final = 5.0


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
    phase = next_phase(seen)
    reason = end_reason(seen) if phase == "Failed" and vmi.phase != phase else None
    doomed = pods_to_delete(seen, phase)
    create = creating(seen, phase) and FINALIZER in vmi.metadata.finalizers
    return VmiDecision(
        patch=_patch(seen, phase, reason),
        create_pod=create,
        pod_condition=pod_condition(vmi, pod, timestamp(seen.now)),
        delete_pods=doomed,
        events=tuple(_events(seen, phase)),
        again=_again(seen, phase),
    )


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
    if pod is not None and phase not in ("Pending", *FINAL) and pod.status.qos_class:
        status["qosClass"] = pod.status.qos_class
    if pod is not None and phase in ("Scheduling", "Scheduled") and hands_over(seen):
        status |= _hand_over(seen, pod)
    if phase in FINAL and vmi.raw.get("launcherContainerImageVersion"):
        status["launcherContainerImageVersion"] = ""
    if phase not in ("Pending", ""):
        status["activePods"] = {
            p.metadata.uid: p.spec.node_name for p in seen.pods if not p.finished
        }
    status["conditions"] = merged(vmi.raw.get("conditions"), conditions(seen, phase), now)
    return status


def _hand_over(seen: Seen, pod: Pod) -> Object:
    """What virt-handler finds the instance by, and all else that is known from here on: one write for all of it."""
    memory = seen.vmi.raw.get("memory")
    status: Object = {
        **seen.hand_over,
        "nodeName": pod.spec.node_name,
        "launcherContainerImageVersion": pod.launcher_image,
    }
    overhead = pod.metadata.annotations.get(OVERHEAD)
    if isinstance(memory, dict) and overhead is not None:
        status["memory"] = {**memory, "memoryOverhead": overhead}
    return status


def _events(seen: Seen, phase: str) -> list[Event]:
    vmi, events = seen.vmi, []
    if seen.missing_claims and seen.pod is None and not vmi.final:
        had = vmi.condition("Synchronized")
        if had is None or had.reason != "FailedPvcNotFound":
            events.append(Event(reason="FailedPvcNotFound", message=missing(seen)))
    if phase != vmi.phase and vmi.phase not in ("", "Pending"):
        if phase == "Succeeded":
            message = "The VirtualMachineInstance was shut down."
            events.append(Event(reason="Stopped", message=message))
        if phase == "Failed":
            message = "The VirtualMachineInstance crashed."
            events.append(Event(type="Warning", reason="Stopped", message=message))
            if seen.pod is None and seen.lost_node:
                events.append(failing(seen.lost_node))
    return events


def _again(seen: Seen, phase: str) -> float | None:
    if seen.pod is None and phase == "Pending" and seen.missing_claims:
        return _CLAIM_RETRY
    if seen.pod is not None and phase == "Pending":
        return UNDECIDED.total_seconds()
    if seen.pod is not None and phase == "Scheduling" and runs(seen.pod):
        return IMMINENT.total_seconds()
    if phase in FINAL and any(not p.finished and not p.metadata.deleting for p in seen.pods):
        return HELPERS_OUTLIVE.total_seconds() + 1
    return None
