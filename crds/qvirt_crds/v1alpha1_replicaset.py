"""``kubevirt.io/v1alpha1`` VirtualMachineReplicaSet, the seed's: what v1 calls VirtualMachineInstanceReplicaSet.

v1 has changed its plural, so it is a kind of its own and not a version that a webhook could convert.
"""

from __future__ import annotations

from typing import Literal

from qvirt_crds.convert_to_v1 import spec_to_v1
from qvirt_crds.meta import JsonObject, ObjectMeta
from qvirt_crds.model import Model
from qvirt_crds.names import API_V1
from qvirt_crds.replicaset import (
    LabelSelector,
    VirtualMachineInstanceReplicaSet,
    VirtualMachineInstanceReplicaSetSpec,
)
from qvirt_crds.v1alpha1 import VirtualMachineSpec
from qvirt_crds.vm import VirtualMachineInstanceTemplate


class VirtualMachineTemplate(Model, frozen=True, kw_only=True):
    """What the replica set makes its instances from."""

    metadata: ObjectMeta = ObjectMeta()
    spec: VirtualMachineSpec


class VirtualMachineReplicaSetSpec(Model, frozen=True, kw_only=True):
    """How many, of what."""

    selector: LabelSelector
    template: VirtualMachineTemplate
    #: 1 when unset.
    replicas: int | None = None
    #: Nothing is created or deleted while it is set.
    paused: bool = False


class VirtualMachineReplicaSet(Model, frozen=True, kw_only=True):
    """Keeps so many guests of a template running; those that have ended are replaced. kubevirt.io/v1 has VirtualMachineInstanceReplicaSet."""

    api_version: Literal["kubevirt.io/v1alpha1"]
    kind: Literal["VirtualMachineReplicaSet"]
    metadata: ObjectMeta
    spec: VirtualMachineReplicaSetSpec
    status: JsonObject | None = None


def replica_set_to_v1(old: VirtualMachineReplicaSet) -> VirtualMachineInstanceReplicaSet:
    """What it asks for, in v1's words. What v1 can't say is left out, as in `convert_to_v1`."""
    template = VirtualMachineInstanceTemplate(
        metadata=old.spec.template.metadata, spec=spec_to_v1(old.spec.template.spec)
    )
    return VirtualMachineInstanceReplicaSet(
        api_version=API_V1,
        kind="VirtualMachineInstanceReplicaSet",
        metadata=old.metadata,
        spec=VirtualMachineInstanceReplicaSetSpec(
            selector=old.spec.selector,
            template=template,
            replicas=old.spec.replicas,
            paused=old.spec.paused,
        ),
    )
