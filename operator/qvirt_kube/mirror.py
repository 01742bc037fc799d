"""What a watch has told so far, held against what the API server lists: nothing that a watch misses stays missed.

A watch that starts anew after an outage lists what is there; that something is *not* there any more is told by nobody.

Objects are kept as JSON: thousands of them as dicts take tens of MiB, and decoding one takes less than asking for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

#: As JSON has it.
Object = dict[str, Any]


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """An object as a list names it."""

    uid: str
    name: str
    namespace: str = ""
    version: str = msgspec.field(name="resourceVersion")


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """An object about which the list and the watch disagree: one of both is late, or the watch has missed it."""

    uid: str
    namespace: str
    name: str
    #: The resourceVersion that the watch told last; empty: it told nothing.
    told: str
    #: The one that the list has; empty: it is not in the list.
    listed: str = ""


class _Entry(msgspec.Struct, frozen=True, gc=False):
    version: str
    key: str
    kept: bytes


def stub(item: Object) -> Object:
    """Kind and metadata: enough to know whom the end of an object concerns."""
    return {
        "apiVersion": item.get("apiVersion", ""),
        "kind": item.get("kind", ""),
        "metadata": _metadata(item),
    }


def whole(item: Object) -> Object:
    """All that anybody reads."""
    return {**item, "metadata": _metadata(item)}


def place(item: Object) -> str:
    """Where an object is: ``namespace/name``."""
    return f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


class Mirror:
    """The newest version of each object of one kind.

    :param keep: what of an object is kept; kind and metadata are in it.
    :param key: what objects are looked for by; several may have the same.
    """

    def __init__(
        self,
        keep: Callable[[Object], Object] = stub,
        key: Callable[[Object], str] = place,
    ) -> None:
        self._keep = keep
        self._key = key
        self._told: dict[str, _Entry] = {}
        #: The newest resourceVersion that the watch has told, of whatever object; empty: none yet.
        self.reached = ""
        #: Key -> uid; or uids, in the rare case.
        self._found: dict[str, str | tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._told)

    def take(self, item: Object, *, gone: bool) -> None:
        """The watch has told of this object. It may come behind what is known by `learn`."""
        uid, version = item["metadata"]["uid"], item["metadata"]["resourceVersion"]
        if not older(version, self.reached):
            self.reached = version
        if gone:
            self.drop(uid)
        elif not older(version, self.version(uid)):
            self.put(item)

    def learn(self, item: Object) -> None:
        """An answer to a write of ours; of an object that nobody has told of (any more) it is left alone."""
        known = self.version(item["metadata"]["uid"])
        if known and older(known, item["metadata"]["resourceVersion"]):
            self.put(item)

    def put(self, item: Object) -> None:
        """That is how the object is, whatever was told."""
        uid = item["metadata"]["uid"]
        self.drop(uid)
        entry = _Entry(
            item["metadata"]["resourceVersion"],
            self._key(item),
            msgspec.json.encode(self._keep(item)),
        )
        self._told[uid] = entry
        others = self._uids(entry.key)
        self._found[entry.key] = (*others, uid) if others else uid

    def drop(self, uid: str) -> Object | None:
        """Forget an object that is gone; what was known of it, None: nothing."""
        entry = self._told.pop(uid, None)
        if entry is None:
            return None
        left = tuple(other for other in self._uids(entry.key) if other != uid)
        if left:
            self._found[entry.key] = left
        else:
            del self._found[entry.key]
        return _decoded(entry)

    def version(self, uid: str) -> str:
        """See `Doubt.told`."""
        entry = self._told.get(uid)
        return "" if entry is None else entry.version

    def find(self, key: str) -> tuple[Object, ...]:
        """What is kept of the objects with that key."""
        return tuple(_decoded(self._told[uid]) for uid in self._uids(key))

    def has(self, key: str) -> bool:
        """Whether there is one with that key."""
        return key in self._found

    def all(self) -> Iterator[Object]:
        """What is kept of each object, as of now."""
        return map(_decoded, list(self._told.values()))

    def doubts(self, listed: Iterable[Listed]) -> tuple[Doubt, ...]:
        """Where a list says something else."""
        missing = dict.fromkeys(self._told)
        differing = []
        for item in listed:
            missing.pop(item.uid, None)
            told = self.version(item.uid)
            if told != item.version:
                doubt = Doubt(
                    uid=item.uid,
                    namespace=item.namespace,
                    name=item.name,
                    told=told,
                    listed=item.version,
                )
                differing.append(doubt)
        return (*differing, *(self._unlisted(uid) for uid in missing))

    def _unlisted(self, uid: str) -> Doubt:
        entry = self._told[uid]
        meta = _decoded(entry)["metadata"]
        namespace = meta.get("namespace", "")
        return Doubt(uid=uid, namespace=namespace, name=meta["name"], told=entry.version)

    def _uids(self, key: str) -> tuple[str, ...]:
        found = self._found.get(key, ())
        return (found,) if isinstance(found, str) else found


def _decoded(entry: _Entry) -> Object:
    return msgspec.json.decode(entry.kept, type=Object)


def _metadata(item: Object) -> Object:
    return {key: value for key, value in item["metadata"].items() if key != "managedFields"}


def older(version: str, than: str) -> bool:
    """Whether one resourceVersion is from before another; they are etcd's revisions, and count up.

    Where they don't (an aggregated API's own) nothing is ever older.
    """
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)
