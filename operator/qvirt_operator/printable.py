"""``status.printableStatus`` of a VirtualMachine: one word for `kubectl get vm` (pure). The first that fits wins."""

from __future__ import annotations

from typing import Literal

from qvirt_operator.views import Vmi

Word = Literal[
    "Terminating",
    "Stopping",
    "Paused",
    "Running",
    "ErrorPvcNotFound",
    "ErrorUnschedulable",
    "ErrImagePull",
    "ImagePullBackOff",
    "Starting",
    "CrashLoopBackOff",
    "Stopped",
]


def printable_status(
    *, deleting: bool, vmi: Vmi | None, stopping: bool, creating: bool, crash_loop: bool
) -> Word:
    """
    :param deleting: the VM is being deleted.
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
        return _starting(vmi)
    if creating:
        return "Starting"
    return "CrashLoopBackOff" if crash_loop else "Stopped"


def _starting(vmi: Vmi) -> Word:
    synchronized, scheduled = vmi.condition("Synchronized"), vmi.condition("PodScheduled")
    trouble = synchronized.reason if synchronized and synchronized.status == "False" else ""
    if trouble == "FailedPvcNotFound":
        return "ErrorPvcNotFound"
    if scheduled and scheduled.status == "False" and scheduled.reason == "Unschedulable":
        return "ErrorUnschedulable"
    match trouble:
        case "ErrImagePull" | "ImagePullBackOff":
            return trouble
        case _:
            return "Starting"
