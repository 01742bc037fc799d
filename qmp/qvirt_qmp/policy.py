"""Which of QEMU's commands a client may send, by grade. Pure.

Three grades, each with all rights of the one before:

- ``read``: look, change nothing, for no other client either.
- ``operate``: what a person at the machine could do: its buttons, keys, cables and sleep.
- ``admin``: change the machine's devices and their data, out of what the launcher has opened already.

At no grade may a command name a host path, URI, character device or descriptor, since QEMU would open it with its own rights, nor take
away what the launcher relies on. The table is `verbs.RULES`; a command that is in no table is new to us: ``query-*`` is for all,
anything else for ``admin``, in both cases without arguments that look like a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from qvirt_qmp import references
from qvirt_qmp.verbs import RULES, Grade, Rule

__all__ = ["Allow", "Decision", "Grade", "Refuse", "decide"]


class Allow(msgspec.Struct, frozen=True):
    """Go ahead."""


class Refuse(msgspec.Struct, frozen=True):
    """Don't; ``reason`` is for the client, and says what would be needed if anything would do."""

    reason: str


Decision = Allow | Refuse

_ORDER: Final[dict[Grade, int]] = {"read": 0, "operate": 1, "admin": 2}

_NEW_QUERY: Final = Rule("read", "a query, as QEMU names them", references.outside_reference)
_NEW_VERB: Final = Rule("admin", "not known to this policy", references.outside_reference)


def decide(command: str, arguments: Mapping[str, object] | None, grade: Grade) -> Decision:
    """Whether a client of ``grade`` may send ``command``. Total: says no rather than raise."""
    rule = rule_of(command)
    if rule.grade == "never":
        return Refuse(rule.reason)
    if _ORDER[grade] < _ORDER[rule.grade]:
        return Refuse(
            f"it needs the grade {rule.grade!r} ({rule.reason}), this socket gives {grade!r}"
        )
    if rule.objection is not None and (why := rule.objection(arguments or {})):
        return Refuse(why)
    return Allow()


def rule_of(command: str) -> Rule:
    """The line of the table for ``command``, or that for commands which are in no line."""
    if command in RULES:
        return RULES[command]
    return _NEW_QUERY if command.startswith("query-") else _NEW_VERB
