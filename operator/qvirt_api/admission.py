"""What may be written: refusals of virtual machines, instances and replica sets (pure).

An object whose spec has not changed is never refused for its spec: rules may grow stricter than when it was accepted,
and finalizers, labels and ownership must stay changeable. One that is being deleted is let go whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qvirt_api import defaulting, review, users
from qvirt_api.decoding import decode
from qvirt_api.review import Request
from qvirt_crds import unimplemented, v1alpha1
from qvirt_crds.configuration import Configuration
from qvirt_crds.errors import Cause, SpecError
from qvirt_crds.meta import JsonObject
from qvirt_crds.names import API_V1ALPHA1, GROUP
from qvirt_crds.replicaset import VirtualMachineInstanceReplicaSet
from qvirt_crds.rules_replicaset import validate_old_replica_set, validate_replica_set
from qvirt_crds.rules_v1alpha1 import validate_v1alpha1
from qvirt_crds.v1alpha1_replicaset import VirtualMachineReplicaSet
from qvirt_crds.validate import validate_vm, validate_vmi
from qvirt_crds.vm import VirtualMachine, VirtualMachineInstance

Causes = tuple[Cause, ...]
_Validate = Callable[[JsonObject, Configuration], Causes]

#: Labels by which our own parts find instances: who sets them decides who runs what.
RESERVED: Final = tuple(
    f"{GROUP}/{name}"
    for name in (
        "created-by",
        "migrationJobUID",
        "nodeName",
        "migrationTargetNodeName",
        "schedulable",
        "install-strategy",
    )
)
_RUNNING: Final = "spec.running is deprecated, please use spec.runStrategy instead."


def mutate(
    request: Request, configuration: Configuration, new_uuid: Callable[[], str], now: str
) -> JsonObject:
    """The answer of the mutating webhook. It never refuses: that is for validation, which sees the result.

    :param now: as Kubernetes writes times.
    """
    match request.resource.resource, request.operation:
        case "virtualmachines", "CREATE":
            patch = defaulting.default_machine(request, configuration, new_uuid)
        case "virtualmachines", "UPDATE":
            patch = defaulting.keep_identity(request)
        case "virtualmachineinstances", "CREATE":
            patch = defaulting.default_instance(request, configuration, new_uuid, now)
        case "virtualmachineinstances", "UPDATE":
            patch = defaulting.keep_status(request)
        case _:
            patch = []
    return review.allowed(request, patch)


def validate(request: Request, configuration: Configuration) -> JsonObject:
    """The answer of the validating webhook."""
    held = request.object
    check = _CHECKS.get(request.resource.resource)
    if held is None or check is None or request.sub_resource:
        return review.allowed(request)
    warnings = _warnings(held)
    if request.operation == "UPDATE":
        if request.resource.resource == "virtualmachineinstances":
            return _changed_instance(request)
        old = request.old_object or {}
        deleted = held.get("metadata", {}).get("deletionTimestamp") is not None
        if deleted or held.get("spec") == old.get("spec"):
            return review.allowed(request)
    if request.resource.resource == "virtualmachineinstances" and (
        message := _claimed_labels(request)
    ):
        return review.forbidden(request, message)
    try:
        causes = check(held, configuration)
    except SpecError as error:
        causes = error.causes
    if causes:
        return review.refused(request, causes)
    return review.allowed(request, warnings=warnings)


def _changed_instance(request: Request) -> JsonObject:
    """The spec of an instance is what runs: nobody changes it but our own parts, and only labels of users are users'."""
    held, old = request.object or {}, request.old_object or {}
    user = request.user_info
    node = users.handler_node(user)
    if node is not None and node != _node_of(old):
        message = "Node restriction, virt-handler is only allowed to modify VMIs it owns"
        return review.forbidden(request, message)
    if users.is_ours(user):
        return review.allowed(request)
    if held.get("spec") != old.get("spec"):
        message = "update of VMI object is restricted"
        return review.refused(request, (Cause(path="spec", message=message),))
    if _reserved(held) != _reserved(old):
        message = "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        cause = Cause(path="metadata.labels", message=message)
        return review.refused(request, (cause,))
    return review.allowed(request)


def _claimed_labels(request: Request) -> str:
    """What to say of a new instance that bears labels of ours."""
    claimed = _reserved(request.object or {})
    if not claimed or users.is_ours(request.user_info):
        return ""
    return f"creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited: {', '.join(claimed)}"


def _reserved(held: JsonObject) -> dict[str, str]:
    labels = held.get("metadata", {}).get("labels") or {}
    return {name: labels[name] for name in RESERVED if name in labels}


def _node_of(held: JsonObject) -> str | None:
    node = (held.get("status") or {}).get("nodeName")
    return node if isinstance(node, str) else None


def _warnings(held: JsonObject) -> tuple[str, ...]:
    is_machine = held.get("kind") == "VirtualMachine"
    running = (held.get("spec") or {}).get("running") is not None
    return (_RUNNING,) if is_machine and running else ()


def _machine(held: JsonObject, configuration: Configuration) -> Causes:
    if held.get("apiVersion") == API_V1ALPHA1:
        old = decode(held, v1alpha1.VirtualMachine, unimplemented.V1_NAMES)
        return validate_v1alpha1(old)
    vm = decode(held, VirtualMachine, unimplemented.of_machine())
    return validate_vm(vm, configuration)


def _instance(held: JsonObject, configuration: Configuration) -> Causes:
    vmi = decode(held, VirtualMachineInstance, unimplemented.of_instance())
    return validate_vmi(vmi, configuration=configuration)


def _replica_set(held: JsonObject, configuration: Configuration) -> Causes:
    known = unimplemented.of_instance("spec.template.spec")
    return validate_replica_set(
        decode(held, VirtualMachineInstanceReplicaSet, known), configuration
    )


def _old_replica_set(held: JsonObject, _configuration: Configuration) -> Causes:
    return validate_old_replica_set(decode(held, VirtualMachineReplicaSet, {}))


_CHECKS: Final[dict[str, _Validate]] = {
    "virtualmachines": _machine,
    "virtualmachineinstances": _instance,
    "virtualmachineinstancereplicasets": _replica_set,
    "virtualmachinereplicasets": _old_replica_set,
}

#: Plural names of what is validated.
CHECKED: Final = tuple(_CHECKS)
