"""What the parts of a machine are made of: values that `render` can write, and how a field is refused.

Neighbours: every module that decides a part (`cpu`, `blocks`, `nics` ...) builds these; `render` alone writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from qvirt_crds.errors import Cause, SpecError
from qvirt_crds.model import Model

Json: TypeAlias = "str | int | bool | Sequence[Json] | Mapping[str, Json] | None"

#: One ``-device``, ``-blockdev``, ``-netdev`` or ``-object``: written as JSON, where types matter to QEMU.
Properties: TypeAlias = dict[str, Json]

#: One key=value argument (``-machine``, ``-smp``, ``-chardev`` ...). None is left out, booleans are on/off.
Options: TypeAlias = dict[str, str | int | bool | None]


class Command(Model, frozen=True, kw_only=True):
    """A QMP command that the machine needs before its guest runs, for what no option can say."""

    execute: str
    arguments: Properties


def present(properties: Mapping[str, Json]) -> Properties:
    """The properties that have a value; QEMU decides the rest."""
    return {key: value for key, value in properties.items() if value is not None}


def refused(path: str, message: str) -> SpecError:
    """The error for one field that this QEMU, machine type or volume can't do."""
    return SpecError((Cause(path=path, message=message),))
