"""The status of a VirtualMachineInstance before anything has happened to it (pure).

virt-api writes it as the object is created (as KubeVirt's webhook does), so that none of it costs a write of its own;
virt-controller completes what is missing of it, as an instance may have been created while virt-api was away.
"""

from __future__ import annotations

from typing import Final

from qvirt_crds.meta import JsonObject
from qvirt_crds.names import RUNTIME_UID
from qvirt_crds.vm import VirtualMachineInstance

#: Of the condition Ready: (reason, message) of an instance without a pod.
NO_POD: Final = ("PodNotExists", "virt-launcher pod has not yet been scheduled")


def first_status(vmi: VirtualMachineInstance, now: str) -> JsonObject:
    """All of it.

    :param vmi: defaulted.
    :param now: as Kubernetes writes times.
    """
    reason, message = NO_POD
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": now}
    return {
        "phase": "Pending",
        "phaseTransitionTimestamps": [{"phase": "Pending", "phaseTransitionTimestamp": now}],
        "runtimeUser": RUNTIME_UID,
        "conditions": [ready | {"reason": reason, "message": message}],
        **given_at_start(vmi),
    }


def given_at_start(vmi: VirtualMachineInstance) -> JsonObject:
    """What the guest has of CPU and memory when it starts.

    :param vmi: defaulted.
    """
    cpu, memory = vmi.spec.domain.cpu, vmi.spec.domain.memory
    facts: JsonObject = {}
    if cpu is not None:
        facts["currentCPUTopology"] = {
            "cores": cpu.cores or 1,
            "sockets": cpu.sockets or 1,
            "threads": cpu.threads or 1,
        }
    if memory is not None and memory.guest is not None:
        guest = str(memory.guest)
        facts["memory"] = dict.fromkeys(("guestAtBoot", "guestCurrent", "guestRequested"), guest)
    return facts
