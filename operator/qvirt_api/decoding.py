"""Objects that the API server hands us -> structs, or every reason why not (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from qvirt_crds import shape
from qvirt_crds.errors import Cause, SpecError
from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model

_T = TypeVar("_T", bound=Model)

#: The rest of an object's metadata is the API server's to check and says nothing to us.
_METADATA: Final = ("name", "generateName", "namespace", "labels", "annotations")


def decode(held: JsonObject, kind: type[_T], known: Mapping[str, str]) -> _T:
    """The object without its status.

    :param known: see `shape.check`.
    :raise SpecError: one cause for each field that is wrong by itself.
    """
    metadata = held.get("metadata") or {}
    bare = {
        **{key: value for key, value in held.items() if key != "status"},
        "metadata": {key: metadata[key] for key in _METADATA if key in metadata},
    }
    try:
        clean, causes = shape.check(bare, kind, known)
    except RecursionError as error:
        message = "lists and objects are nested too deeply"
        raise SpecError((Cause(path="spec", message=message),)) from error
    if causes:
        raise SpecError(causes)
    return msgspec.convert(clean, kind)
