"""Paths of fields as users and Kubernetes write them: ``spec.domain.devices.disks[0].name``, ``metadata.labels[a/b]``."""

from __future__ import annotations

import re
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_INDEX: Final = re.compile(r"\[[0-9]+\]")


def join(path: str, key: str | int) -> str:
    """The path of what `key` (a field, a map's key or a list's index) names inside `path`."""
    if isinstance(key, int) or not _PLAIN.fullmatch(key):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def without_indices(path: str) -> str:
    """The path with ``[]`` for every index, as tables of fields have it."""
    return _INDEX.sub("[]", path)


def parent(path: str) -> str:
    """The path of the object or list around it; empty for a top-level field."""
    return path[: max(path.rfind("."), path.rfind("["), 0)]
