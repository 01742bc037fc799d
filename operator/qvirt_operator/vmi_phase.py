"""The phase of an instance, by its pod (pure; reference: KubeVirt's, section 3.1)::

""/Pending -> Scheduling (a pod exists) -> Scheduled (the launcher runs) -> Running (by virt-handler)
any of them -> Succeeded | Failed (the compute container has ended, or the pod is gone)

Each phase costs a write, of which whoever watches instances is told. So it is written when it has lasted for a while: a
pod has its node, and a guest runs, a moment after there is anything to tell of them. Nobody waits for the writes: from
the pod's node on, virt-handler looks for the launcher by itself, and writes Running as soon as it is true.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from qvirt_operator.node_health import UNRESPONSIVE
from qvirt_operator.views import Pod, moment
from qvirt_operator.vmi_seen import Seen

#: How long the scheduler may take before its silence is told; up to a second less, as creation times are whole ones.
UNDECIDED: Final = timedelta(seconds=3)
#: How long a guest may take, once its launcher runs, before that is told. A busy kubelet is ten seconds behind with its own news.
IMMINENT: Final = timedelta(seconds=30)

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
        return "Pending" if pod is None or undecided(pod, seen.now) else "Scheduling"
    if pod is None:
        return "Failed"
    if pod.ended is not None:
        return "Succeeded" if pod.ended.exit_code == 0 else "Failed"
    if pod.finished:
        return pod.status.phase
    if vmi.phase == "Scheduling":
        if pod.metadata.deleting:
            return "Failed"
        return "Scheduled" if runs(pod) and not imminent(pod, seen.now) else "Scheduling"
    return vmi.phase


def hands_over(seen: Seen) -> bool:
    """Whether virt-handler is to be told now: the pod has its node, and nobody else may look after the guest."""
    pod = seen.pod
    return (
        pod is not None
        and pod.spec.node_name not in ("", seen.vmi.status.node_name)
        and seen.vmi.phase in ("", "Pending", "Scheduling")
        and not pod.finished
        and not pod.metadata.deleting
    )


def undecided(pod: Pod, now: datetime) -> bool:
    """Whether the scheduler may yet say at once where a new pod goes, or that it goes nowhere."""
    return (
        pod.spec.node_name == ""
        and pod.status.phase in ("", "Pending")
        and pod.condition("PodScheduled") is None
        and not pod.metadata.deleting
        and _within(UNDECIDED, pod.metadata.creation_timestamp, now)
    )


def imminent(pod: Pod, now: datetime) -> bool:
    """Whether the guest may yet run at once."""
    running = pod.compute.state.running if pod.compute is not None else None
    started = (running or {}).get("startedAt")
    return _within(IMMINENT, moment(started if isinstance(started, str) else None), now)


def _within(time: timedelta, since: datetime | None, now: datetime) -> bool:
    # Times are of other machines' clocks: none of them may make anybody wait for long.
    return since is not None and timedelta(0) <= now - since < time


def runs(pod: Pod) -> bool:
    """Whether the kubelet says that the launcher runs, and so do the holders of its disks."""
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
