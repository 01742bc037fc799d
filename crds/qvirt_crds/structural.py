"""Structs -> structural OpenAPI v3 schemas, as CustomResourceDefinitions need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import inspect

from qvirt_crds.meta import JsonObject

#: (struct's name, field's wire name) -> sentence for ``kubectl explain``; the generator reads them from the sources.
Comments = Mapping[tuple[type, str], str]

#: Kubernetes' own pattern for quantities.
QUANTITY: Final = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
#: Lists that KubeVirt limits.
_LIMITED: Final = ("disks", "interfaces", "networks", "volumes")
_MAX_ITEMS: Final = 256
#: Kubernetes' own to check: a CRD may say nothing of an object's metadata.
_OPEN: Final[JsonObject] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


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
    schema: JsonObject = {"type": "object", "description": docstring(info.cls)}
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
        "pattern": QUANTITY,
        "x-kubernetes-int-or-string": True,
    }


def docstring(kind: type) -> str:
    return _plain(kind.__doc__ or "")


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "").split())
