"""JSON patches (RFC 6902) that add what defaulting has added, and leave alone what the user wrote (pure)."""

from __future__ import annotations

from qvirt_crds.meta import JsonObject


def additions(before: object, after: object, path: str = "") -> list[JsonObject]:
    """Operations that bring an object from `before` to `after`; nothing is ever removed.

    Both leave out fields at their defaults, which the user may have written; so whatever only `before` has, and what
    neither has, stays as it is on the user's object.

    :param path: JSON pointer of both.
    """
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        patch = []
        for key, value in after.items():
            inner = f"{path}/{escaped(key)}"
            if key in before:
                patch += additions(before[key], value, inner)
            else:
                patch.append({"op": "add", "path": inner, "value": value})
        return patch
    if isinstance(before, list) and isinstance(after, list) and len(before) <= len(after):
        patch = []
        for index, value in enumerate(before):
            patch += additions(value, after[index], f"{path}/{index}")
        added = after[len(before) :]
        return patch + [{"op": "add", "path": f"{path}/-", "value": value} for value in added]
    return [{"op": "replace", "path": path, "value": after}]


def escaped(key: str) -> str:
    """A key as a JSON pointer has it."""
    return key.replace("~", "~0").replace("/", "~1")
