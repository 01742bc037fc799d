"""What is done to the pod of an instance, once it is there (pure)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from qvirt_crds.status import FINAL
from qvirt_operator.decisions import Target
from qvirt_operator.views import Object, Pod, Vmi
from qvirt_operator.vmi_seen import Seen
from qvirt_pods.pods import DEFAULT_GRACE_SECONDS, POD_GRACE_MARGIN, READINESS_GATE

#: How long the helpers of a pod may outlive its guest. The launcher ends them; one that was killed can't.
HELPERS_OUTLIVE: Final = timedelta(seconds=15)


def pod_condition(vmi: Vmi, pod: Pod | None, now: str) -> tuple[str, Object] | None:
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


def pods_to_delete(seen: Seen, phase: str) -> tuple[Target, ...]:
    """Those of an instance that is being deleted, and those whose helpers outlive the guest."""
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
