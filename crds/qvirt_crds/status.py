"""``status`` of a VirtualMachineInstance: its words, and who writes which of its fields.

A VirtualMachineInstance has no status subresource (KubeVirt's clients write its status with the rest), so every writer
sends a merge patch of its own fields with the resourceVersion that it saw: whoever is late observes again.
"""

from __future__ import annotations

from typing import Final, Literal

VmiPhase = Literal["", "Pending", "Scheduling", "Scheduled", "Running", "Succeeded", "Failed"]
Writer = Literal["virt-controller", "virt-handler", "virt-api"]

#: No way leads out of these.
FINAL: Final[tuple[VmiPhase, ...]] = ("Succeeded", "Failed")

#: Field of the status -> the only process that writes it.
WRITERS: Final[dict[str, Writer]] = {
    # `PHASE_WRITERS` has the phase.
    "reason": "virt-controller",
    "nodeName": "virt-controller",
    "activePods": "virt-controller",
    "qosClass": "virt-controller",
    "runtimeUser": "virt-controller",
    "launcherContainerImageVersion": "virt-controller",
    "memory": "virt-controller",
    "currentCPUTopology": "virt-controller",
    "virtualMachineRevisionName": "virt-controller",
    "volumeStatus": "virt-controller",
    "migrationMethod": "virt-controller",
    # Set by an eviction, taken away by the subresource evacuate/cancel.
    "evacuationNodeName": "virt-api",
    "interfaces": "virt-handler",
    "guestOSInfo": "virt-handler",
    "machine": "virt-handler",
    "fsFreezeStatus": "virt-handler",
}

#: Phase -> the processes that set it; each appends to ``phaseTransitionTimestamps`` in the same write. Of two, whoever comes
#: first: virt-handler passes through Scheduled on its way to Running, if the guest runs before virt-controller says so.
#: virt-api sets the first of all fields, as the object is created (`first_status`), before anybody else can see it.
PHASE_WRITERS: Final[dict[VmiPhase, tuple[Writer, ...]]] = {
    "Pending": ("virt-api", "virt-controller"),
    "Scheduling": ("virt-controller",),
    "Scheduled": ("virt-controller", "virt-handler"),
    "Running": ("virt-handler",),
    "Succeeded": ("virt-controller",),
    "Failed": ("virt-controller",),
}

#: Type of a condition -> the only process that adds, changes and removes it; the others copy it as it is.
CONDITION_WRITERS: Final[dict[str, Writer]] = {
    "Ready": "virt-controller",
    "PodScheduled": "virt-controller",
    "AgentConnected": "virt-handler",
    "AgentVersionNotSupported": "virt-handler",
    "AccessCredentialsSynchronized": "virt-handler",
    "Paused": "virt-handler",
    "EvictionRequested": "virt-controller",
    "LiveMigratable": "virt-controller",
    "StorageLiveMigratable": "virt-controller",
}


def synchronized_writer(phase: str) -> Writer:
    """Who writes the condition ``Synchronized``, which KubeVirt's controller and node agent share.

    While the guest is virt-handler's, it is virt-handler's: until then and after the end, virt-controller's. Whoever
    changes the phase from one's to the other's takes away in the same write what was said before.
    """
    return "virt-handler" if phase in ("Scheduled", "Running") else "virt-controller"
