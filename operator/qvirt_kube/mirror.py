"""What a watch has told so far, held against what the API server lists: nothing that a watch misses stays missed.

A watch that starts anew after an outage lists what is there; that something is *not* there any more is told by nobody.
"""

from __future__ import annotations

from typing import Any

import msgspec

#: As JSON has it.
Object = dict[str, Any]


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """An object about which the list and the watch disagree: one of both is late, or the watch has missed it."""

    uid: str
    namespace: str
    name: str
    #: The resourceVersion that the watch told last; empty: it told nothing.
    told: str


class Mirror:
    """The newest version of each object of one kind that a watch has told."""

    def __init__(self) -> None:
        self._told: dict[str, Object] = {}

    def take(self, item: Object, *, gone: bool) -> None:
        """The watch has told of this object."""
        uid = item["metadata"]["uid"]
        if gone:
            self._told.pop(uid, None)
        else:
            self._told[uid] = stub(item)

    def drop(self, uid: str) -> Object | None:
        """Forget an object that is gone; what was known of it, None: nothing."""
        return self._told.pop(uid, None)

    def version(self, uid: str) -> str:
        """See `Doubt.told`."""
        return _version(self._told.get(uid))

    def doubts(self, listed: list[Object]) -> tuple[Doubt, ...]:
        """Where a list, of whole objects or of their metadata, says something else."""
        found = {item["metadata"]["uid"]: item["metadata"] for item in listed}
        known = {uid: item["metadata"] for uid, item in self._told.items()}
        return tuple(
            Doubt(
                uid=uid,
                namespace=meta.get("namespace", ""),
                name=meta["name"],
                told=self.version(uid),
            )
            for uid, meta in (known | found).items()
            if uid not in found or found[uid]["resourceVersion"] != self.version(uid)
        )


def stub(item: Object) -> Object:
    """Kind and metadata: enough to know whom the end of an object concerns."""
    meta = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    return {
        "apiVersion": item.get("apiVersion", ""),
        "kind": item.get("kind", ""),
        "metadata": meta,
    }


def _version(item: Object | None) -> str:
    return "" if item is None else str(item["metadata"]["resourceVersion"])
