"""Structs -> CustomResourceDefinitions with structural OpenAPI v3 schemas.

The API server prunes what a schema does not know before any webhook sees it; kubectl refuses such fields itself, by the
same schema. Fields of KubeVirt's that qvirt does not implement are in it all the same (`refused_fields`), for the
admission webhook to refuse. A schema refuses wrong types and wrong words earlier.
"""

from __future__ import annotations

from typing import Final

from msgspec import inspect

from qvirt_crds import unimplemented, v1alpha1
from qvirt_crds.kubevirt import KubeVirt
from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model
from qvirt_crds.names import GROUP
from qvirt_crds.refused_fields import with_refused_fields
from qvirt_crds.replicaset import VirtualMachineInstanceReplicaSet
from qvirt_crds.structural import Comments, docstring, schema_of
from qvirt_crds.v1alpha1_replicaset import VirtualMachineReplicaSet
from qvirt_crds.vm import VirtualMachine, VirtualMachineInstance

#: Where the conversion webhook answers; the installer writes the namespace and the CA bundle that it uses.
WEBHOOK_SERVICE: Final = "virt-api"
WEBHOOK_NAMESPACE: Final = "kubevirt"
WEBHOOK_PATH: Final = "/convert"

#: A status: what is in it is its writers' to know.
_OPEN: Final[JsonObject] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

_AGE: Final[JsonObject] = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_REPLICAS: Final[list[JsonObject]] = [
    {"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"},
    {"name": "Current", "type": "integer", "jsonPath": ".status.replicas"},
    {"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas"},
    _AGE,
]
_SCALED: Final[JsonObject] = {
    "status": {},
    "scale": {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.labelSelector",
    },
}


def definitions(comments: Comments | None = None) -> tuple[JsonObject, ...]:
    """All CustomResourceDefinitions, ready to be applied."""
    comments = comments or {}
    return (
        _machines(comments),
        _instances(comments),
        _replica_sets(comments),
        _old_replica_sets(comments),
        _installations(comments),
    )


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
    root = with_refused_fields(_root(VirtualMachine, comments, status), unimplemented.of_machine())
    current = _served("v1", root, columns, storage=True)
    alias = _served("v1alpha3", root, columns)
    phase = {"name": "Phase", "type": "string", "jsonPath": ".status.phase"}
    old = with_refused_fields(
        _root(v1alpha1.VirtualMachine, comments, _OPEN), unimplemented.V1_NAMES
    )
    seeds = _served("v1alpha1", old, [phase, _AGE])
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
    root = with_refused_fields(
        _root(VirtualMachineInstance, comments, _OPEN), unimplemented.of_instance()
    )
    versions = [
        _served("v1", root, columns, storage=True),
        _deprecated(_served("v1alpha3", root, columns)),
    ]
    return _definition("VirtualMachineInstance", ["vmi", "vmis"], versions)


def _replica_sets(comments: Comments) -> JsonObject:
    root = with_refused_fields(
        _root(VirtualMachineInstanceReplicaSet, comments, _OPEN),
        unimplemented.of_instance("spec.template.spec"),
    )
    current = _served("v1", root, _REPLICAS, storage=True)
    alias = _deprecated(_served("v1alpha3", root, _REPLICAS))
    versions = [{**v, "subresources": _SCALED} for v in (current, alias)]
    names = ["vmirs", "vmirss"]
    return _definition("VirtualMachineInstanceReplicaSet", names, versions)


def _old_replica_sets(comments: Comments) -> JsonObject:
    """The seed's. Scaling it is ours: v1alpha1 had no subresources."""
    root = _root(VirtualMachineReplicaSet, comments, _OPEN)
    version = {
        **_served("v1alpha1", root, _REPLICAS, storage=True),
        "subresources": _SCALED,
    }
    return _definition("VirtualMachineReplicaSet", ["vmrs", "vmrss"], [version])


def _installations(comments: Comments) -> JsonObject:
    """What qvirt does not know of the settings is kept, so that it can be reported."""
    columns = [_AGE, {"name": "Phase", "type": "string", "jsonPath": ".status.phase"}]
    root = _root(KubeVirt, comments, _OPEN)
    root["properties"]["spec"] = _keeping(root["properties"]["spec"])
    versions = [
        {**version, "subresources": {"status": {}}}
        for version in (
            _served("v1", root, columns, storage=True),
            _deprecated(_served("v1alpha3", root, columns)),
        )
    ]
    definition = _definition("KubeVirt", ["kv", "kvs"], versions)
    definition["metadata"]["labels"] = {GROUP: "", f"operator.{GROUP}": ""}
    return definition


def _keeping(schema: JsonObject) -> JsonObject:
    """The schema with objects that may have more fields than it names."""
    if schema.get("type") != "object" or "additionalProperties" in schema:
        return schema
    inner = {key: _keeping(value) for key, value in schema.get("properties", {}).items()}
    more = {"x-kubernetes-preserve-unknown-fields": True}
    return {**schema, **({"properties": inner} if inner else {}), **more}


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
        "description": docstring(kind),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": schema_of(spec.type, comments),
            "status": status,
        },
    }
