"""``status.printableStatus`` of a VirtualMachine: one word for `kubectl get vm` (pure). The first that fits wins."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal

from qvirt_operator.views import Vmi, moment

Word = Literal[
    "Terminating",
    "Stopping",
    "Paused",
    "Running",
    "ErrorPvcNotFound",
    "ErrorUnschedulable",
    "WaitingForVolumeBinding",
    "ErrImagePull",
    "ImagePullBackOff",
    "Starting",
    "CrashLoopBackOff",
    "Stopped",
]

#: The scheduler says so at its first look, also when a node or a volume only comes a moment later.
UNSCHEDULABLE_FOR: Final = timedelta(seconds=10)


def printable_status(
    *,
    deleting: bool,
    vmi: Vmi | None,
    now: datetime,
    unbound: bool,
    stopping: bool,
    creating: bool,
    crash_loop: bool,
) -> Word:
    """
    :param deleting: the VM is being deleted.
    :param unbound: a claim of the guest's has no volume yet.
    :param stopping: the deletion of the instance has just been decided.
    :param creating: its creation has.
    :param crash_loop: the VM waits before it starts a guest that failed to start.
    """
    if deleting:
        return "Terminating"
    if vmi is not None and not vmi.final and (vmi.metadata.deleting or stopping):
        return "Stopping"
    if vmi is not None and vmi.phase == "Running":
        paused = vmi.condition("Paused")
        return "Paused" if paused is not None and paused.status == "True" else "Running"
    if vmi is not None and not vmi.final:
        return _starting(vmi, now, unbound)
    if creating:
        return "Starting"
    return "CrashLoopBackOff" if crash_loop else "Stopped"


def _starting(vmi: Vmi, now: datetime, unbound: bool) -> Word:
    synchronized = vmi.condition("Synchronized")
    trouble = synchronized.reason if synchronized and synchronized.status == "False" else ""
    if trouble == "FailedPvcNotFound":
        return "ErrorPvcNotFound"
    since = _unschedulable_since(vmi)
    if since is not None and now - since >= UNSCHEDULABLE_FOR:
        return "ErrorUnschedulable"
    if unbound:
        return "WaitingForVolumeBinding"
    match trouble:
        case "ErrImagePull" | "ImagePullBackOff":
            return trouble
        case _:
            return "Starting"


def settles_in(vmi: Vmi | None, now: datetime) -> float | None:
    """Seconds until the word may change although nothing happens."""
    since = _unschedulable_since(vmi) if vmi is not None else None
    if since is None or now - since >= UNSCHEDULABLE_FOR:
        return None
    return (UNSCHEDULABLE_FOR - (now - since)).total_seconds() + 0.1


def _unschedulable_since(vmi: Vmi) -> datetime | None:
    found = vmi.condition("PodScheduled")
    if found is None or found.status != "False" or found.reason != "Unschedulable":
        return None
    return moment(found.last_transition_time)
