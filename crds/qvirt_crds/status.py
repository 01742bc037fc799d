"""``status`` of a VirtualMachineInstance: its words, and who writes which of its fields.

A VirtualMachineInstance has no status subresource (KubeVirt's clients write its status with the rest), so every writer
sends a merge patch of its own fields with the resourceVersion that it saw: whoever is late observes again.
"""

from __future__ import annotations

from typing import Final, Literal

VmiPhase = Literal["", "Pending", "Scheduling", "Scheduled", "Running", "Succeeded", "Failed"]
Writer = Literal["virt-controller", "virt-handler"]

#: No way leads out of these.
FINAL: Final[tuple[VmiPhase, ...]] = ("Succeeded", "Failed")

#: Field of the status -> the only process that writes it.
WRITERS: Final[dict[str, Writer]] = {
    # Pending, Scheduling, Scheduled, Succeeded, Failed; Running is virt-handler's (`PHASE_WRITERS`).
    "reason": "virt-controller",
    "nodeName": "virt-controller",
    "activePods": "virt-controller",
    "qosClass": "virt-controller",
    "runtimeUser": "virt-controller",
    "launcherContainerImageVersion": "virt-controller",
    "memory": "virt-controller",
    "currentCPUTopology": "virt-controller",
    "virtualMachineRevisionName": "virt-controller",
    "interfaces": "virt-handler",
    "guestOSInfo": "virt-handler",
    "volumeStatus": "virt-handler",
    "machine": "virt-handler",
    "fsFreezeStatus": "virt-handler",
}

#: Phase -> the only process that sets it; each appends to ``phaseTransitionTimestamps`` in the same write.
PHASE_WRITERS: Final[dict[VmiPhase, Writer]] = {
    "Pending": "virt-controller",
    "Scheduling": "virt-controller",
    "Scheduled": "virt-controller",
    "Running": "virt-handler",
    "Succeeded": "virt-controller",
    "Failed": "virt-controller",
}

#: Type of a condition -> the only process that adds, changes and removes it; the others copy it as it is.
CONDITION_WRITERS: Final[dict[str, Writer]] = {
    "Ready": "virt-controller",
    "PodScheduled": "virt-controller",
    "Synchronized": "virt-controller",
    "AgentConnected": "virt-handler",
    "AgentVersionNotSupported": "virt-handler",
    "Paused": "virt-handler",
    "LiveMigratable": "virt-handler",
    # KubeVirt's node agent shares `Synchronized` with the controller; ours has a condition of its own.
    "GuestSynchronized": "virt-handler",
}
