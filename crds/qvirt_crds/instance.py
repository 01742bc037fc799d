"""VirtualMachine -> the VirtualMachineInstance that runs it, as virt-controller makes it."""

from __future__ import annotations

import uuid
from typing import Final

from msgspec.structs import replace

from qvirt_crds.domain import Firmware
from qvirt_crds.meta import ObjectMeta
from qvirt_crds.names import API_V1
from qvirt_crds.vm import VirtualMachine, VirtualMachineInstance

#: Namespace of the SHA-1 UUIDs that KubeVirt derives from the names of VMs stored without one.
_UUID_NAMESPACE: Final = uuid.UUID("6a1a24a1-4061-4607-8bf4-a3963d0c5895")


def instance_of(vm: VirtualMachine) -> VirtualMachineInstance:
    """The instance of a VM: its name and namespace, the template's labels, annotations and spec.

    A VM without ``firmware.uuid`` gets KubeVirt's UUID of its name, so that the guest (its cloud-init, its licences)
    finds the same machine at every start.
    """
    template = vm.spec.template
    firmware = template.spec.domain.firmware or Firmware()
    if not firmware.uuid:
        firmware = replace(firmware, uuid=str(uuid.uuid5(_UUID_NAMESPACE, vm.metadata.name)))
    return VirtualMachineInstance(
        api_version=API_V1,
        kind="VirtualMachineInstance",
        metadata=ObjectMeta(
            name=vm.metadata.name,
            namespace=vm.metadata.namespace,
            labels=template.metadata.labels,
            annotations=template.metadata.annotations,
        ),
        spec=replace(template.spec, domain=replace(template.spec.domain, firmware=firmware)),
    )
