"""Structs -> CustomResourceDefinitions with structural OpenAPI v3 schemas.

The API server prunes what a schema does not know (its default, with a warning for ``kubectl``): refusing unknown fields
is the admission webhook's job, which sees what the user sent. A schema refuses wrong types and wrong words earlier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import inspect

from qvirt_crds import v1alpha1
from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model
from qvirt_crds.names import GROUP
from qvirt_crds.replicaset import VirtualMachineInstanceReplicaSet
from qvirt_crds.vm import VirtualMachine, VirtualMachineInstance

#: (struct's name, field's wire name) -> sentence for ``kubectl explain``; the generator reads them from the sources.
Comments = Mapping[tuple[type, str], str]

#: Where the conversion webhook answers; the installer writes the namespace and the CA bundle that it uses.
WEBHOOK_SERVICE: Final = "virt-api"
WEBHOOK_NAMESPACE: Final = "kubevirt"
WEBHOOK_PATH: Final = "/convert"

#: Kubernetes' own pattern for quantities.
_QUANTITY: Final = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
#: Lists that KubeVirt limits.
_LIMITED: Final = ("disks", "interfaces", "networks", "volumes")
_MAX_ITEMS: Final = 256
#: Kubernetes' own to check: a CRD may say nothing of an object's metadata.
_OPEN: Final[JsonObject] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

_AGE: Final[JsonObject] = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def definitions(comments: Comments | None = None) -> tuple[JsonObject, ...]:
    """All CustomResourceDefinitions, ready to be applied."""
    comments = comments or {}
    return (_machines(comments), _instances(comments), _replica_sets(comments))


def _machines(comments: Comments) -> JsonObject:
    status = {
        **_OPEN,
        "properties": {"printableStatus": {"type": "string", "default": "Stopped"}},
    }
    columns = [
        _AGE,
        {"name": "Status", "type": "string", "jsonPath": ".status.printableStatus"},
        _condition("Ready"),
    ]
    current = _served("v1", _root(VirtualMachine, comments, status), columns, storage=True)
    alias = _served("v1alpha3", _root(VirtualMachine, comments, status), columns)
    phase = {"name": "Phase", "type": "string", "jsonPath": ".status.phase"}
    seeds = _served("v1alpha1", _root(v1alpha1.VirtualMachine, comments, _OPEN), [phase, _AGE])
    versions = [{**v, "subresources": {"status": {}}} for v in (current, _deprecated(alias), seeds)]
    definition = _definition("VirtualMachine", ["vm", "vms"], versions)
    definition["spec"]["conversion"] = {
        "strategy": "Webhook",
        "webhook": {
            "conversionReviewVersions": ["v1"],
            "clientConfig": {
                "service": {
                    "name": WEBHOOK_SERVICE,
                    "namespace": WEBHOOK_NAMESPACE,
                    "path": WEBHOOK_PATH,
                }
            },
        },
    }
    return definition


def _instances(comments: Comments) -> JsonObject:
    """No status subresource, as in KubeVirt: its clients write the status of instances with the rest."""
    columns = [
        _AGE,
        {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
        {"name": "IP", "type": "string", "jsonPath": ".status.interfaces[0].ipAddress"},
        {"name": "NodeName", "type": "string", "jsonPath": ".status.nodeName"},
        _condition("Ready"),
        _condition("LiveMigratable", name="Live-Migratable", priority=1),
        _condition("Paused", priority=1),
    ]
    root = _root(VirtualMachineInstance, comments, _OPEN)
    versions = [
        _served("v1", root, columns, storage=True),
        _deprecated(_served("v1alpha3", root, columns)),
    ]
    return _definition("VirtualMachineInstance", ["vmi", "vmis"], versions)


def _replica_sets(comments: Comments) -> JsonObject:
    columns = [
        {"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Current", "type": "integer", "jsonPath": ".status.replicas"},
        {"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas"},
        _AGE,
    ]
    root = _root(VirtualMachineInstanceReplicaSet, comments, _OPEN)
    current = _served("v1", root, columns, storage=True)
    alias = _deprecated(_served("v1alpha3", root, columns))
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.labelSelector",
    }
    versions = [{**v, "subresources": {"status": {}, "scale": scale}} for v in (current, alias)]
    names = ["vmirs", "vmirss"]
    return _definition("VirtualMachineInstanceReplicaSet", names, versions)


def _condition(kind: str, *, name: str = "", priority: int = 0) -> JsonObject:
    path = f".status.conditions[?(@.type=='{kind}')].status"
    column: JsonObject = {"name": name or kind, "type": "string", "jsonPath": path}
    return {**column, "priority": priority} if priority else column


def _served(
    name: str, root: JsonObject, columns: list[JsonObject], *, storage: bool = False
) -> JsonObject:
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": root},
    }


def _deprecated(version: JsonObject) -> JsonObject:
    """v1alpha3, in KubeVirt's words."""
    return {
        **version,
        "deprecated": True,
        "deprecationWarning": f"{GROUP}/{version['name']} is now deprecated and will be removed in a future release.",
    }


def _definition(kind: str, short_names: list[str], versions: list[JsonObject]) -> JsonObject:
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "labels": {GROUP: ""}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": short_names,
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": versions,
        },
    }


def _root(kind: type[Model], comments: Comments, status: JsonObject) -> JsonObject:
    """The schema of a whole object."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    spec = next(field for field in info.fields if field.encode_name == "spec")
    return {
        "type": "object",
        "description": _docstring(kind),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": schema_of(spec.type, comments),
            "status": status,
        },
    }


def schema_of(info: inspect.Type, comments: Comments) -> JsonObject:
    """The structural schema of a type of the contract."""
    match info:
        case inspect.StructType():
            return _struct(info, comments)
        case inspect.VarTupleType(item_type=item):
            return {"type": "array", "items": schema_of(item, comments)}
        case inspect.DictType(value_type=inspect.AnyType()):
            return dict(_OPEN)
        case inspect.DictType(value_type=value):
            return {"type": "object", "additionalProperties": schema_of(value, comments)}
        case inspect.UnionType(types=types):
            return _union([t for t in types if not isinstance(t, inspect.NoneType)], comments)
        case inspect.LiteralType(values=values):
            return {"type": "string", "enum": list(values)}
        case inspect.StrType():
            return {"type": "string"}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            return {"type": "integer", "format": "int64"}
        case _:
            raise NotImplementedError(f"a field of type {info} in the contract")


def _struct(info: inspect.StructType, comments: Comments) -> JsonObject:
    schema: JsonObject = {"type": "object", "description": _docstring(info.cls)}
    properties = {field.encode_name: _field(info.cls, field, comments) for field in info.fields}
    required = [field.encode_name for field in info.fields if field.required]
    if required:
        schema["required"] = required
    if properties:
        schema["properties"] = properties
    return schema


def _field(owner: type, field: inspect.Field, comments: Comments) -> JsonObject:
    if field.encode_name == "metadata":
        return dict(_OPEN)
    schema = schema_of(field.type, comments)
    if field.encode_name in _LIMITED and schema["type"] == "array":
        schema["maxItems"] = _MAX_ITEMS
    if comment := comments.get((owner, field.encode_name)):
        schema["description"] = _plain(comment)
    return schema


def _union(types: list[inspect.Type], comments: Comments) -> JsonObject:
    if len(types) == 1:
        return schema_of(types[0], comments)
    if all(isinstance(t, inspect.LiteralType) for t in types):
        words = [w for t in types if isinstance(t, inspect.LiteralType) for w in t.values]
        return {"type": "string", "enum": words}
    # str, int and float together: a quantity. Kubernetes has no schema for a fraction that is not in quotes.
    return {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": _QUANTITY,
        "x-kubernetes-int-or-string": True,
    }


def _docstring(kind: type) -> str:
    return _plain(kind.__doc__ or "")


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "").split())
