"""Semantic refusals of replica sets: of their template, and of a selector that does not find what the template makes."""

from __future__ import annotations

from qvirt_crds.configuration import DEFAULT, Configuration
from qvirt_crds.errors import Cause
from qvirt_crds.meta import ObjectMeta
from qvirt_crds.replicaset import LabelSelector, VirtualMachineInstanceReplicaSet
from qvirt_crds.rules_v1alpha1 import validate_v1alpha1_spec
from qvirt_crds.selectors import matches
from qvirt_crds.v1alpha1_replicaset import VirtualMachineReplicaSet
from qvirt_crds.validate import validate_spec

_TEMPLATE = "spec.template.spec"


def validate_replica_set(
    replica_set: VirtualMachineInstanceReplicaSet, configuration: Configuration = DEFAULT
) -> tuple[Cause, ...]:
    """Every reason why it is not acceptable."""
    spec = replica_set.spec
    return (
        *_counts(spec.replicas, spec.selector, spec.template.metadata),
        *validate_spec(spec.template.spec, _TEMPLATE, configuration),
    )


def validate_old_replica_set(replica_set: VirtualMachineReplicaSet) -> tuple[Cause, ...]:
    """The same for the seed's v1alpha1 kind, in its words."""
    spec = replica_set.spec
    return (
        *_counts(spec.replicas, spec.selector, spec.template.metadata),
        *validate_v1alpha1_spec(spec.template.spec, _TEMPLATE),
    )


def _counts(replicas: int | None, selector: LabelSelector, template: ObjectMeta) -> list[Cause]:
    causes = []
    if replicas is not None and replicas < 0:
        message = f"must be 0 or more, found {replicas}"
        causes.append(Cause(path="spec.replicas", message=message))
    if not matches(selector, template.labels):
        causes.append(Cause(path="spec.selector", message="selector does not match labels."))
    return causes
