"""ConversionReview v1: VirtualMachines between the versions of ``kubevirt.io`` (pure).

A conversion never fails for an object that the API server has stored: lists, and with them deletion, would fail with
it. What can't be read is carried whole in an annotation, and comes back whole.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from qvirt_api.errors import BadReview
from qvirt_crds import convert, shape, v1alpha1
from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model
from qvirt_crds.names import API_V1, API_V1ALPHA1, API_V1ALPHA3
from qvirt_crds.vm import VirtualMachine

_T = TypeVar("_T", bound=Model)

#: Spec and status of an object that could not be converted, as JSON, and their version.
UNCONVERTED: Final = "v1alpha1.qvirt.io/unconverted"

_REVIEW: Final = "apiextensions.k8s.io/v1"
_NEW: Final = (API_V1, API_V1ALPHA3)
_VERSIONS: Final = (*_NEW, API_V1ALPHA1)
_PARTS: Final[tuple[str, ...]] = ("spec", "status")
#: What stands where the unconverted would: complete enough for every reader.
_BARE: Final[JsonObject] = {
    API_V1: {"runStrategy": "Halted", "template": {"spec": {"domain": {"devices": {}}}}},
    API_V1ALPHA1: {"domain": {"devices": {}}},
}


def review(body: object) -> JsonObject:
    """The answer to a ConversionReview, failures of single objects included.

    :raise BadReview: it is not one.
    """
    match body:
        case {
            "kind": "ConversionReview",
            "apiVersion": "apiextensions.k8s.io/v1",
            "request": {
                "uid": str(uid),
                "desiredAPIVersion": str(wanted),
                "objects": list(objects),
            },
        }:
            return {
                "apiVersion": _REVIEW,
                "kind": "ConversionReview",
                "response": {"uid": uid, **_response(objects, wanted)},
            }
        case _:
            raise BadReview(f"expected a ConversionReview of {_REVIEW}")


def _response(objects: list[object], wanted: str) -> JsonObject:
    converted: list[JsonObject] = []
    for held in objects:
        if not isinstance(held, dict) or not _is_machine(held) or wanted not in _VERSIONS:
            message = f"qvirt converts VirtualMachines between {', '.join(_VERSIONS)} only"
            return {"result": {"status": "Failure", "message": message}}
        converted.append(convert_machine(held, wanted))
    return {"result": {"status": "Success"}, "convertedObjects": converted}


def _is_machine(held: JsonObject) -> bool:
    return (
        held.get("kind") == "VirtualMachine"
        and held.get("apiVersion") in _VERSIONS
        and isinstance(held.get("metadata"), dict)
    )


def convert_machine(held: JsonObject, wanted: str) -> JsonObject:
    """A VirtualMachine in another version; of its metadata only qvirt's own annotations change."""
    if held["apiVersion"] == wanted or (held["apiVersion"] in _NEW and wanted in _NEW):
        return {**held, "apiVersion": wanted}
    other = API_V1ALPHA1 if wanted == API_V1ALPHA1 else API_V1
    if (returned := _restored(held, other)) is None:
        returned = _converted(held, other)
    return {**returned, "apiVersion": wanted}


def _converted(held: JsonObject, wanted: str) -> JsonObject:
    # Not all metadata is ours to understand; only the annotations take part.
    annotations = held["metadata"].get("annotations") or {}
    bare = {**held, "metadata": {"annotations": annotations}}
    new: Model | None = None
    if wanted == API_V1:
        if (old := _decode(bare, v1alpha1.VirtualMachine)) is not None:
            new = convert.to_v1(old)
    elif (machine := _decode({**bare, "apiVersion": API_V1}, VirtualMachine)) is not None:
        new = convert.to_v1alpha1(machine)
    if new is None:
        return _unconverted(held, wanted)
    data: JsonObject = msgspec.json.decode(msgspec.json.encode(new))
    kept = data.get("metadata", {}).get("annotations", {})
    return {**data, "metadata": _with_annotations(held["metadata"], kept)}


def _decode(data: JsonObject, kind: type[_T]) -> _T | None:
    try:
        clean, causes = shape.check(data, kind, {})
        return None if causes else msgspec.convert(clean, kind)
    except RecursionError:
        return None


def _unconverted(held: JsonObject, wanted: str) -> JsonObject:
    version = API_V1ALPHA1 if held["apiVersion"] == API_V1ALPHA1 else API_V1
    content = {"apiVersion": version} | {part: held[part] for part in _PARTS if part in held}
    annotations = held["metadata"].get("annotations") or {}
    text = msgspec.json.encode(content, order="deterministic").decode()
    return {
        "apiVersion": wanted,
        "kind": held["kind"],
        "metadata": _with_annotations(held["metadata"], {**annotations, UNCONVERTED: text}),
        "spec": _BARE[wanted],
    }


def _restored(held: JsonObject, wanted: str) -> JsonObject | None:
    """What `_unconverted` made of an object of the wanted version, if that is what this is."""
    annotations = dict(held["metadata"].get("annotations") or {})
    try:
        content = msgspec.json.decode(annotations.pop(UNCONVERTED, "{}"), type=JsonObject)
    except (msgspec.DecodeError, RecursionError):
        return None
    if content.get("apiVersion") != wanted:
        return None
    return {
        "kind": held["kind"],
        "metadata": _with_annotations(held["metadata"], annotations),
        **{part: content[part] for part in _PARTS if part in content},
    }


def _with_annotations(metadata: JsonObject, annotations: dict[str, str]) -> JsonObject:
    rest = {key: value for key, value in metadata.items() if key != "annotations"}
    return {**rest, "annotations": annotations} if annotations else rest
