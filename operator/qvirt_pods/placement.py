"""Labels that a node must have for a guest (pure; names are KubeVirt's)."""

from __future__ import annotations

from typing import Final

from qvirt_crds.names import SCHEDULABLE
from qvirt_crds.vm import VirtualMachineInstanceSpec

_MODEL: Final = "cpu-model.node.kubevirt.io/"
_FEATURE: Final = "cpu-feature.node.kubevirt.io/"
#: What every node makes of its own.
_HOST_MODELS: Final = (None, "", "host-model", "host-passthrough")


def node_selector(spec: VirtualMachineInstanceSpec, *, emulated: bool) -> dict[str, str]:
    """What the user says, and: a virt-handler, the architecture, the CPU model and the features that it requires.

    :param emulated: guests do without KVM; the emulator takes every model, and leaves out what it can't do.
    """
    selector = {
        **spec.node_selector,
        SCHEDULABLE: "true",
        "kubernetes.io/arch": spec.architecture or "amd64",
    }
    cpu = spec.domain.cpu
    if cpu is None or emulated:
        return selector
    if cpu.model not in _HOST_MODELS:
        selector[_MODEL + cpu.model] = "true"
    for feature in cpu.features:
        if feature.policy == "require":
            selector[_FEATURE + feature.name] = "true"
    return selector
