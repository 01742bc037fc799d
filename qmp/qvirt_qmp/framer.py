"""Where one JSON message ends and the next begins, in a stream that is cut anywhere. Pure.

QMP needs no newline between messages (and `QMPClient` sends none), so messages are found by the balance of their brackets, with
strings and escapes respected, as QEMU's own lexer does. What stands between the brackets is not judged here.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

_SOMETHING: Final = re.compile(rb"[^ \t\r\n]")
_BRACKET_OR_QUOTE: Final = re.compile(rb'["{}\[\]\xff]')
_END_OF_SCALAR: Final = re.compile(rb'[ \t\r\n"{\[\xff]')
_SPECIAL_IN_STRING: Final = re.compile(rb'["\\\n\xff]')

_RESET: Final = 0xFF
_OPENING: Final = frozenset(b"{[")
_CLOSING: Final = frozenset(b"}]")
_QUOTE: Final = ord('"')
_NEWLINE: Final = ord("\n")
_ESCAPE: Final = ord("\\")


class Malformed(msgspec.Struct, frozen=True):
    """A message that is not handed on; the stream goes on behind it."""

    reason: str


Frame = bytes | Malformed

_Place = Literal["between", "scalar", "brackets", "string"]


class Framer:
    """Takes bytes as they come, gives whole messages.

    It holds at most ``limit`` bytes: of a message that is longer, or nested deeper than ``deepest``, nothing is kept, and
    `Malformed` is given at once. The byte 0xFF, which is in no UTF-8 text, drops an unfinished message, so that a client
    can always start afresh. A newline inside a string can only be a mistake; it drops the message with `Malformed`.
    """

    def __init__(self, *, limit: int = 1 << 20, deepest: int = 256) -> None:
        self._limit = limit
        self._deepest = deepest
        self._found: list[Frame] = []
        self._begin()

    @property
    def inside(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._place != "between"

    def feed(self, data: bytes) -> list[Frame]:
        """The messages that end in ``data``, in order. Each is the text of one JSON value, if it is JSON at all."""
        at = 0
        while at < len(data):
            match self._place:
                case "between":
                    at = self._between(data, at)
                case "scalar":
                    at = self._in_scalar(data, at)
                case "brackets":
                    at = self._in_brackets(data, at)
                case "string":
                    at = self._in_string(data, at)
        found, self._found = self._found, []
        return found

    def _begin(self) -> None:
        self._kept = bytearray()
        self._place: _Place = "between"
        self._depth = 0
        self._escaped = False
        self._dropping = False

    def _between(self, data: bytes, at: int) -> int:
        match = _SOMETHING.search(data, at)
        if match is None:
            return len(data)
        first = data[match.start()]
        if first == _RESET:
            return match.end()
        if first == _QUOTE:
            self._place = "string"
        elif first in _OPENING:
            self._place = "brackets"
            self._depth = 1
        else:
            self._place = "scalar"
        self._keep(data[match.start() : match.end()])
        return match.end()

    def _in_scalar(self, data: bytes, at: int) -> int:
        match = _END_OF_SCALAR.search(data, at)
        end = len(data) if match is None else match.start()
        self._keep(data[at:end])
        if match is not None:
            self._complete()
        return end

    def _in_brackets(self, data: bytes, at: int) -> int:
        match = _BRACKET_OR_QUOTE.search(data, at)
        end = len(data) if match is None else match.end()
        self._keep(data[at:end])
        if match is None:
            return end
        found = data[match.start()]
        if found == _RESET:
            self._begin()
        elif found == _QUOTE:
            self._place = "string"
        elif found in _CLOSING:
            self._depth -= 1
            if self._depth == 0:
                self._complete()
        else:
            self._depth += 1
            if self._depth > self._deepest:
                self._drop(f"nested deeper than {self._deepest}")
        return end

    def _in_string(self, data: bytes, at: int) -> int:
        if self._escaped and data[at] not in (_NEWLINE, _RESET):
            self._escaped = False
            self._keep(data[at : at + 1])
            return at + 1
        match = _SPECIAL_IN_STRING.search(data, at)
        end = len(data) if match is None else match.end()
        self._keep(data[at:end])
        if match is None:
            return end
        found = data[match.start()]
        if found == _ESCAPE:
            self._escaped = True
        elif found == _QUOTE:
            self._place = "brackets"
            if self._depth == 0:
                self._complete()
        else:
            if found == _NEWLINE:
                self._drop("a string is not closed at the end of its line")
            self._begin()
        return end

    def _keep(self, piece: bytes) -> None:
        if self._dropping:
            return
        if len(self._kept) + len(piece) > self._limit:
            self._drop(f"longer than {self._limit} bytes")
        else:
            self._kept += piece

    def _drop(self, reason: str) -> None:
        if not self._dropping:
            self._dropping = True
            self._kept = bytearray()
            self._found.append(Malformed(reason))

    def _complete(self) -> None:
        if not self._dropping:
            self._found.append(bytes(self._kept))
        self._begin()
