"""The phase of an instance, by its pod (pure; reference: KubeVirt's, section 3.1)::

""/Pending -> Scheduling (a pod exists) -> Scheduled (handed over to virt-handler) -> Running (by virt-handler)
any of them -> Succeeded | Failed (the compute container has ended, or the pod is gone)
"""

from __future__ import annotations

from typing import Final

from qvirt_operator.node_health import UNRESPONSIVE
from qvirt_operator.views import Pod
from qvirt_operator.vmi_seen import Seen

#: Container runtimes add the signal's number to it.
_SIGNALLED: Final = 128
_SIGNALS: Final = 64


def next_phase(seen: Seen) -> str:
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
        return "Scheduled" if handed_over(pod) else "Scheduling"
    return vmi.phase


def handed_over(pod: Pod) -> bool:
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


def end_reason(seen: Seen) -> str:
    """Why it failed, for ``status.reason``."""
    pod = seen.pod
    if pod is None and seen.lost_node:
        return UNRESPONSIVE
    if pod is None:
        return "PodVanished: the launcher pod is gone, and the guest with it"
    if pod.ended is not None:
        how = pod.ended.reason or "Error"
        if _SIGNALLED < pod.ended.exit_code <= _SIGNALLED + _SIGNALS:
            # Its last words were about something else.
            return f"{how}: the launcher was killed by signal {pod.ended.exit_code - _SIGNALLED}"
        what = f"the launcher ended with status {pod.ended.exit_code}"
        said = pod.ended.message.strip().splitlines()[-1:] or [""]
        return f"{how}: {what}" + (f": {said[0][:500]}" if said[0] else "")
    if pod.status.reason or pod.status.message:
        return f"{pod.status.reason or 'PodFailed'}: {pod.status.message}"
    return "PodDeleted: the launcher pod was deleted before the guest ran"


def creating(seen: Seen, phase: str) -> bool:
    """Whether the pod is to be made now."""
    return (
        seen.pod is None
        and phase == "Pending"
        and seen.failure is None
        and not seen.missing_claims
        and not seen.vmi.metadata.deleting
    )
