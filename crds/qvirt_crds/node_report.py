"""What a node can give to guests: found out by the launcher's image, told to the cluster by virt-handler.

virt-handler has no QEMU, and the launcher no API server; this is what the one leaves for the other in a file.
"""

from __future__ import annotations

import os
from typing import Final

from qvirt_crds.model import Model

#: In virt-handler's state directory.
FILE_NAME: Final = "node.json"
KVM_DEVICE: Final = "/dev/kvm"


class NodeReport(Model, frozen=True, kw_only=True):
    """One look at the node."""

    #: `kvm_identity` at that time: the verdict is about this device.
    kvm_identity: str
    kvm_works: bool
    #: Why it doesn't, in one sentence.
    kvm_message: str = ""
    #: CPU models that guests can have with all of their features, by KVM if it works, else by emulation.
    cpu_models: tuple[str, ...] = ()
    #: What the best model has.
    cpu_features: tuple[str, ...] = ()
    #: As CPUID has it, e.g. ``AuthenticAMD``; empty: unknown.
    cpu_vendor: str = ""


def kvm_identity(device: str) -> str:
    """This boot and this device node: a KVM module that is loaded anew makes another one. Empty: there is none.

    :param device: the node's own, not a container's copy.
    """
    try:
        found = os.stat(device)
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        return ""
    return f"{boot} {found.st_rdev} {found.st_ino}"
