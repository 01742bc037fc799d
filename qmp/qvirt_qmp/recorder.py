"""The flight recorder: the last of what was said on the monitor, and by whom, in bounded memory."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec

Kind = Literal["command", "reply", "error", "refused", "event"]

#: Bytes of one entry's body that are kept.
_LONGEST: Final = 2048
#: What an entry costs beside its texts: struct, numbers, place in the ring.
_OVERHEAD: Final = 200
_REDACTED: Final = "(redacted)"

_SECRET_NAME: Final = re.compile(
    r".*(passw|secret|token|credential|private[-_]?key).*|user[-_]?data.*|command[-_]line",
    re.IGNORECASE,
)
#: Members that are secret in these commands only.
_SECRET_IN: Final[Mapping[str, frozenset[str]]] = {
    "object-add": frozenset({"data", "iv"}),
    "ringbuf-write": frozenset({"data"}),
    "send-key": frozenset({"keys"}),
    "input-send-event": frozenset({"events"}),
    "expire_password": frozenset({"time"}),
    "sev-inject-launch-secret": frozenset({"packet-header"}),
}


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was said."""

    #: Counts from 1 and never repeats, so gaps show what the ring has given up.
    number: int
    #: CLOCK_MONOTONIC, seconds.
    time: float
    kind: Kind
    #: The command or event.
    name: str
    #: On whose behalf: ``launcher``, or a client as door#number. Empty for events.
    origin: str = ""
    #: Arguments, value or data as JSON, or an error's text; cut at 2 KiB.
    body: str = ""
    #: Bytes that were cut off.
    cut: int = 0


class FlightRecorder:
    """A ring of `Entry`, of ``max_bytes`` at most. Secrets are taken out before anything is kept.

    :param clock: CLOCK_MONOTONIC in seconds.
    """

    def __init__(
        self, max_bytes: int = 256 * 1024, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max = max_bytes
        self._clock = clock
        self._ring: deque[tuple[Entry, int]] = deque()
        self._bytes = 0
        self._count = 0

    def command(self, origin: str, name: str, arguments: object) -> None:
        """A command was sent."""
        self._note("command", origin, name, _json(redact(name, arguments)))

    def reply(self, origin: str, name: str, value: object) -> None:
        """A command was answered with ``value``."""
        self._note("reply", origin, name, _json(redact("", value)))

    def error(self, origin: str, name: str, message: str) -> None:
        """A command failed, or was not answered."""
        self._note("error", origin, name, message)

    def refused(self, origin: str, name: str, arguments: object, why: str) -> None:
        """A command was not let through."""
        self._note("refused", origin, name, f"{why}: {_json(redact(name, arguments))}")

    def event(self, name: str, data: object) -> None:
        """An event came."""
        self._note("event", "", name, _json(data))

    def entries(self, since: int = 0) -> tuple[Entry, ...]:
        """What is kept, oldest first, with numbers above ``since``."""
        return tuple(entry for entry, _ in self._ring if entry.number > since)

    def _note(self, kind: Kind, origin: str, name: str, body: str) -> None:
        self._count += 1
        entry = Entry(
            number=self._count,
            time=self._clock(),
            kind=kind,
            name=name[:_LONGEST],
            origin=origin,
            body=body[:_LONGEST],
            cut=max(0, len(body) - _LONGEST),
        )
        # Four bytes is the most that a character takes.
        size = _OVERHEAD + sum(
            len(text) if text.isascii() else 4 * len(text)
            for text in (entry.name, entry.origin, entry.body)
        )
        self._ring.append((entry, size))
        self._bytes += size
        while self._bytes > self._max:
            self._bytes -= self._ring.popleft()[1]


def redact(command: str, value: object) -> object:
    """``value`` with everything replaced that a name says is secret. Pure."""
    if isinstance(value, Mapping):
        hidden = _SECRET_IN.get(command, frozenset())
        return {
            key: _REDACTED
            if _SECRET_NAME.fullmatch(str(key)) or key in hidden
            else redact(command, part)
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact(command, part) for part in value]
    return value


def _json(value: object) -> str:
    if value is None or value == {}:
        return ""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return f"(not JSON: {error})"
