"""v1alpha1 VirtualMachine <-> v1 VirtualMachine, without loss in either direction.

A v1alpha1 VirtualMachine runs once, as long as it exists: v1's run strategy ``Once``. What one version can't say is
kept in an annotation of the other (`stash`), and comes back unless someone has edited that field meanwhile. Metadata
other than that annotation stays as it is, as a conversion webhook must leave it.

The field rules are in `convert_to_v1` and `convert_to_v1alpha1`. Defaults are not applied here: the implicit network
card of v1alpha1 is v1's default (pod network, bridge, virtio).
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from qvirt_crds import stash, v1alpha1
from qvirt_crds.convert_to_v1 import machine_to_v1
from qvirt_crds.convert_to_v1alpha1 import machine_to_v1alpha1
from qvirt_crds.meta import JsonObject, ObjectMeta
from qvirt_crds.model import Model
from qvirt_crds.names import ONLY_IN_V1, ONLY_IN_V1ALPHA1
from qvirt_crds.stash import Entry
from qvirt_crds.vm import VirtualMachine

_T = TypeVar("_T", bound=Model)
_PARTS: Final[tuple[str, ...]] = ("spec", "status")


def to_v1(old: v1alpha1.VirtualMachine) -> VirtualMachine:
    """The v1 object of a v1alpha1 one. ``to_v1alpha1(to_v1(x)) == x``. Never fails."""
    bare = replace(old, metadata=_without_stashes(old.metadata))
    new = _restored(machine_to_v1(bare), _stash_of(old.metadata, ONLY_IN_V1))
    lost = _lost(bare, machine_to_v1alpha1(new))
    return replace(new, metadata=_with_stash(new.metadata, ONLY_IN_V1ALPHA1, lost))


def to_v1alpha1(new: VirtualMachine) -> v1alpha1.VirtualMachine:
    """The v1alpha1 object of a v1 one. ``to_v1(to_v1alpha1(x)) == x`` for x of ``kubevirt.io/v1``. Never fails."""
    bare = replace(new, metadata=_without_stashes(new.metadata))
    old = _restored(machine_to_v1alpha1(bare), _stash_of(new.metadata, ONLY_IN_V1ALPHA1))
    lost = _lost(bare, machine_to_v1(old))
    return replace(old, metadata=_with_stash(old.metadata, ONLY_IN_V1, lost))


def _lost(original: _T, returned: _T) -> tuple[Entry, ...]:
    """What the way back will not find by itself, the metadata apart."""
    return stash.differences(_parts(returned), _parts(original))


def _parts(machine: Model) -> JsonObject:
    data: JsonObject = msgspec.json.decode(msgspec.json.encode(machine))
    return {part: data[part] for part in _PARTS if part in data}


def _restored(machine: _T, entries: tuple[Entry, ...]) -> _T:
    if not entries:
        return machine
    data: JsonObject = msgspec.json.decode(msgspec.json.encode(machine))
    metadata = data.pop("metadata", {})
    parts = {part: data[part] for part in _PARTS if part in data}
    rest = {key: value for key, value in data.items() if key not in _PARTS}
    try:
        return msgspec.convert(
            {**rest, "metadata": metadata, **stash.restore(parts, entries)}, type(machine)
        )
    except msgspec.ValidationError:
        # Someone has written into the annotation; without it the object is still what its fields say.
        return machine


def _stash_of(metadata: ObjectMeta, key: str) -> tuple[Entry, ...]:
    try:
        return msgspec.json.decode(metadata.annotations.get(key, "[]"), type=tuple[Entry, ...])
    except (msgspec.DecodeError, RecursionError):
        return ()


def _without_stashes(metadata: ObjectMeta) -> ObjectMeta:
    kept = {
        key: value
        for key, value in metadata.annotations.items()
        if key not in (ONLY_IN_V1, ONLY_IN_V1ALPHA1)
    }
    return replace(metadata, annotations=kept)


def _with_stash(metadata: ObjectMeta, key: str, entries: tuple[Entry, ...]) -> ObjectMeta:
    if not entries:
        return metadata
    text = msgspec.json.encode(entries, order="deterministic").decode()
    return replace(metadata, annotations={**metadata.annotations, key: text})
