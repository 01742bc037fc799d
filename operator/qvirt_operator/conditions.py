"""Conditions and merge patches, as data (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qvirt_operator.views import Condition, Object


def condition(kind: str, status: bool, reason: str = "", message: str = "") -> Condition:
    """A condition that is True or False."""
    return Condition(type=kind, status=str(status), reason=reason, message=message)


def merged(old: object, wanted: Mapping[str, Condition | None], now: str) -> list[Object]:
    """The conditions of an object after one writer's say.

    :param old: the status field as it is.
    :param wanted: the writer's conditions by type, None for those that shall not be there. Types that are not in it are
        somebody else's and stay as they are, to the letter. A time changes only with the status.
    """
    before = [c for c in old if isinstance(c, dict)] if isinstance(old, list) else []
    left = dict(wanted)
    after = []
    for had in before:
        kind = str(had.get("type"))
        if kind not in wanted:
            after.append(had)
        elif (new := left.pop(kind, None)) is not None:
            kept = had.get("lastTransitionTime") if had.get("status") == new.status else None
            after.append(as_object(new, kept or now))
    return after + [as_object(new, now) for new in left.values() if new is not None]


def as_object(condition: Condition, since: str) -> Object:
    """As JSON has it."""
    found: Object = {"type": condition.type, "status": condition.status}
    found["lastTransitionTime"] = since
    if condition.reason:
        found["reason"] = condition.reason
    if condition.message:
        found["message"] = condition.message
    return found


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """What turns the fields of `new` from what they are in `old`; None in `new` removes a field. Other fields stay.

    Objects inside are merged by key the same way, but a key of an inner object that `new` does not have is removed.
    """
    patch: Object = {}
    for key, value in new.items():
        have = old.get(key)
        if value is None:
            if key in old:
                patch[key] = None
        elif isinstance(value, Mapping) and isinstance(have, Mapping):
            gone = dict.fromkeys(k for k in have if k not in value)
            inner = merge_patch(have, {**value, **gone})
            if inner:
                patch[key] = inner
        elif value != have:
            patch[key] = value
    return patch
