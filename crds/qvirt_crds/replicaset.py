"""``kubevirt.io/v1`` VirtualMachineInstanceReplicaSet: so many instances of one template."""

from __future__ import annotations

from typing import Literal

from qvirt_crds.meta import JsonObject, ObjectMeta
from qvirt_crds.model import Model
from qvirt_crds.vm import ApiVersion, VirtualMachineInstanceTemplate


class LabelSelectorRequirement(Model, frozen=True, kw_only=True):
    """meta/v1: a label's key and what its value must be."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(Model, frozen=True, kw_only=True):
    """meta/v1: all of it must match."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class VirtualMachineInstanceReplicaSetSpec(Model, frozen=True, kw_only=True):
    """How many, of what."""

    selector: LabelSelector
    template: VirtualMachineInstanceTemplate
    #: 1 when unset.
    replicas: int | None = None
    #: Nothing is created or deleted while it is set.
    paused: bool = False


class VirtualMachineInstanceReplicaSet(Model, frozen=True, kw_only=True):
    """Keeps so many instances of a template running; those that have ended are replaced."""

    api_version: ApiVersion
    kind: Literal["VirtualMachineInstanceReplicaSet"]
    metadata: ObjectMeta
    spec: VirtualMachineInstanceReplicaSetSpec
    status: JsonObject | None = None
