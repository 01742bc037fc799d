"""What a conversion can't express, kept beside it: differences between two JSON documents, each with a guard.

``differences(base, full)`` lists what turns `base` into `full`; ``restore(base, those)`` applies it. An entry applies
only where `base` still says what it said when the entry was made, so an edit made meanwhile wins over the stash.
Items of lists are found by their ``name``, so that an item put in before them does no harm.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model

#: Fields that mean something only together: an edit of one makes what was kept of the others wrong.
_TOGETHER: Final[tuple[frozenset[str], ...]] = (
    frozenset({"sockets", "cores", "threads"}),
    frozenset({"disk", "lun", "cdrom", "floppy"}),
    frozenset({"pod", "multus"}),
    frozenset({"bridge", "masquerade", "passtBinding"}),
    frozenset({"utc", "timezone"}),
    frozenset(
        {
            "containerDisk",
            "registryDisk",
            "persistentVolumeClaim",
            "ephemeral",
            "emptyDisk",
            "cloudInitNoCloud",
            "cloudInitConfigDrive",
        }
    ),
)


class Entry(Model, frozen=True, kw_only=True):
    """One difference. Without `value` the field is to be taken away."""

    #: Keys of objects, and names of list items.
    path: tuple[str, ...]
    #: `_guard` of the path in the base.
    was: str
    value: object = msgspec.UNSET


def differences(base: JsonObject, full: JsonObject) -> tuple[Entry, ...]:
    """What `full` has and `base` does not say."""
    return tuple(
        Entry(path=path, was=_guard(base, path) or "", value=value)
        for path, value in _diff(base, full, ())
    )


def restore(base: JsonObject, entries: tuple[Entry, ...]) -> JsonObject:
    """`base` with every entry whose guard holds. The law: ``restore(base, differences(base, full)) == full``."""
    result = copy.deepcopy(base)
    for entry in entries:
        if entry.path and _guard(base, entry.path) == entry.was:
            _put(result, _indices(base, entry.path), entry.value)
    return result


def _diff(
    base: object, full: object, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Paths and values in `full`; UNSET stands for no value, on either side."""
    # An object that is empty and there is not the same as none: below the root, it is a value of its own.
    if isinstance(full, dict) and (full or not path) and isinstance(base, dict | msgspec.UnsetType):
        old: JsonObject = base if isinstance(base, dict) else {}
        for key in (*old, *(k for k in full if k not in old)):
            yield from _diff(
                old.get(key, msgspec.UNSET), full.get(key, msgspec.UNSET), (*path, key)
            )
    elif isinstance(base, list) and isinstance(full, list) and _alignable(base, full):
        for item, other in zip(base, full, strict=True):
            yield from _diff(item, other, (*path, item["name"]))
    elif _canonical(base) != _canonical(full):
        yield path, full


def _alignable(base: list[object], full: list[object]) -> bool:
    """Whether the lists can be told apart item by item, the first one's names being addresses."""
    names = [_name_of(item) for item in base]
    return (
        len(base) == len(full)
        and None not in names
        and len(set(names)) == len(names)
        and all(isinstance(item, dict) for item in full)
    )


def _name_of(item: object) -> str | None:
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else None


def _canonical(value: object) -> bytes:
    return b"" if value is msgspec.UNSET else msgspec.json.encode(value, order="deterministic")


def _guard(document: JsonObject, path: tuple[str, ...]) -> str | None:
    """16 hex digits for what a document says at a path: how much of the path is there, and what stands at its end.

    None where the path leads through something that is not what it was.
    """
    here: object = document
    for depth, key in enumerate(path):
        inner = _step(here, key)
        if inner is None:
            return None
        there, value = inner
        if not there or depth == len(path) - 1:
            return _digest(depth + there, _state(here, key, value))
        here = value
    return None


def _step(container: object, key: str) -> tuple[bool, object] | None:
    """Whether a key is there, and its value; None when the container can't have it."""
    if isinstance(container, dict):
        return key in container, container.get(key, msgspec.UNSET)
    if isinstance(container, list):
        found = [item for item in container if _name_of(item) == key]
        return (True, found[0]) if len(found) == 1 else None
    return None


def _state(container: object, key: str, value: object) -> bytes:
    """What a guard watches: the value, and those that belong together with it."""
    group = next((g for g in _TOGETHER if key in g), None)
    if group is None or not isinstance(container, dict):
        return _canonical(value)
    return _canonical({k: container[k] for k in sorted(group) if k in container})


def _digest(depth: int, state: bytes) -> str:
    return hashlib.sha256(b"%d %s" % (depth, state)).hexdigest()[:16]


def _indices(document: JsonObject, path: tuple[str, ...]) -> tuple[str | int, ...]:
    """The path with indices for names of list items (a path that `_guard` has passed)."""
    place: list[str | int] = []
    here: object = document
    for step in path:
        if isinstance(here, list):
            place.append(next(i for i, item in enumerate(here) if _name_of(item) == step))
            here = here[int(place[-1])]
        else:
            place.append(step)
            here = here.get(step) if isinstance(here, dict) else None
    return tuple(place)


def _put(document: JsonObject, place: tuple[str | int, ...], value: object) -> None:
    here: object = document
    for key in place[:-1]:
        if isinstance(here, list) and isinstance(key, int):
            here = here[key] if key < len(here) else None
        elif isinstance(here, dict):
            here = here.setdefault(key, {})
    last = place[-1]
    if isinstance(here, list) and isinstance(last, int) and value is not msgspec.UNSET:
        here[last] = value
    elif isinstance(here, dict) and value is msgspec.UNSET:
        here.pop(last, None)
    elif isinstance(here, dict):
        here[last] = value
