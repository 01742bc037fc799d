"""The conditions of an instance that virt-controller writes (pure; reference: KubeVirt's, section 3.3)."""

from __future__ import annotations

from typing import Final

from qvirt_crds.first_status import NO_POD
from qvirt_crds.status import FINAL, synchronized_writer
from qvirt_operator.conditions import condition
from qvirt_operator.views import Condition, Pod, Vmi
from qvirt_operator.vmi_phase import creating
from qvirt_operator.vmi_seen import Seen

_NOT_RUNNING: Final = "GuestNotRunning"
#: The kubelet's word of a pod that lacks nothing else.
_GATE_CLOSED: Final = "ReadinessGatesNotReady"
_PULL_FAILURES: Final = ("ErrImagePull", "ImagePullBackOff")


def conditions(seen: Seen, phase: str) -> dict[str, Condition | None]:
    """Those that are virt-controller's in this phase (`qvirt_crds.status`); None for one that shall not be there."""
    found = {
        "Ready": _ready(seen.vmi, seen.pod, phase),
        "PodScheduled": _pod_scheduled(seen),
        "EvictionRequested": _evicted(seen.vmi),
    }
    found |= {c.type: c for c in seen.migratable}
    if creating(seen, phase):
        # What went wrong the last time stands until it goes well: taking it back first would be two writes a try.
        return found
    if synchronized_writer(phase) == "virt-controller" or phase != seen.vmi.phase:
        found["Synchronized"] = _synchronized(seen, phase)
    return found


def _evicted(vmi: Vmi) -> Condition | None:
    """Somebody wants the guest off its node, and something must act (`qvirt_api.eviction`)."""
    if not vmi.raw.get("evacuationNodeName") or vmi.final:
        return None
    reason = "EvictionRequested"
    return condition(reason, True, reason, "VMI is marked for eviction")


def _ready(vmi: Vmi, pod: Pod | None, phase: str) -> Condition:
    if pod is None or phase == "Pending":
        return condition("Ready", False, *NO_POD)
    if pod.metadata.deleting:
        return condition("Ready", False, "PodTerminating", "virt-launcher pod is terminating")
    said = pod.condition("Ready")
    if phase != "Running" or pod.status.phase == "Pending" or _is_late(vmi, said):
        return condition("Ready", False, _NOT_RUNNING, "Guest VM is not reported as running")
    message = "virt-launcher pod is missing the Ready condition"
    return said or condition("Ready", False, "PodConditionMissing", message)


def _is_late(vmi: Vmi, said: Condition | None) -> bool:
    """Whether the kubelet has not seen yet that the pod's gate is open (`vmi_pods.pod_condition`): its next word is about to come."""
    before, paused = vmi.condition("Ready"), vmi.condition("Paused")
    return (
        (before is not None and before.reason == _NOT_RUNNING)
        and (said is not None and said.reason == _GATE_CLOSED)
        and (paused is None or paused.status != "True")
    )


def _pod_scheduled(seen: Seen) -> Condition | None:
    if seen.pod is not None:
        scheduled = seen.pod.condition("PodScheduled")
        return scheduled if scheduled is not None and scheduled.status == "False" else None
    if seen.missing_claims and not seen.vmi.final:
        return condition("PodScheduled", False, "Unschedulable", missing(seen))
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
        return condition("Synchronized", False, "FailedPvcNotFound", missing(seen))
    status = seen.pod.status
    for container in (*status.init_container_statuses, *status.container_statuses):
        waiting = container.state.waiting
        if waiting is not None and waiting.reason in _PULL_FAILURES:
            return condition("Synchronized", False, waiting.reason, waiting.message)
    return None


def missing(seen: Seen) -> str:
    """What to say of claims that are not there."""
    namespace = seen.vmi.metadata.namespace
    return "; ".join(
        f"PVC {namespace}/{claim} does not exist, waiting for it to appear"
        for claim in seen.missing_claims
    )
