"""The agent's side of the channel as lines (pure): what is a reply, what is the mark that a conversation begins anew, what is rubbish.

The guest writes this, so it may be anything: replies to questions of an earlier client, half lines of an agent that was killed, a login
prompt, an endless line. QEMU's guest agent ends each reply with a newline and answers ``guest-sync-delimited`` with the byte 0xFF in front
(QEMU's documentation of its guest agent protocol).
"""

from __future__ import annotations

from typing import Final

import msgspec

DELIMITER: Final = b"\xff"
#: Of one reply, in bytes: the output of a command that was run in the guest is the largest.
LONGEST: Final = 4 << 20


class TooLong(msgspec.Struct, frozen=True):
    """A line that was not kept."""


class Result(msgspec.Struct, frozen=True):
    """What a command returned."""

    value: object


class Failure(msgspec.Struct, frozen=True):
    """The agent's error."""

    error_class: str
    description: str


class Rubbish(msgspec.Struct, frozen=True):
    """No reply of any kind."""


Reply = Result | Failure | Rubbish


class Lines:
    """Takes bytes as they come, gives whole lines without their end. Holds `limit` bytes at most.

    What stands before a delimiter belongs to an earlier conversation and is forgotten.
    """

    def __init__(self, limit: int = LONGEST) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._dropping = False

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """The lines that end in ``data``; `TooLong` for each that had more than `limit` bytes."""
        *ended, rest = data.split(b"\n")
        lines: list[bytes | TooLong] = []
        for piece in ended:
            self._keep(piece)
            lines.append(TooLong() if self._dropping else bytes(self._kept))
            self._kept.clear()
            self._dropping = False
        self._keep(rest)
        return lines

    def _keep(self, piece: bytes) -> None:
        _, delimiter, after = piece.rpartition(DELIMITER)
        if delimiter:
            self._kept.clear()
            self._dropping = False
            piece = delimiter + after
        if self._dropping or len(self._kept) + len(piece) > self._limit:
            self._dropping = True
            self._kept.clear()
        else:
            self._kept += piece


def read(line: bytes) -> Reply:
    """What a line says."""
    text = line.removeprefix(DELIMITER)
    try:
        message = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Rubbish()
    if not isinstance(message, dict):
        return Rubbish()
    if "return" in message:
        return Result(message["return"])
    error = message.get("error")
    if not isinstance(error, dict):
        return Rubbish()
    return Failure(str(error.get("class", "")), str(error.get("desc", "")))


def is_mark(line: bytes, number: int) -> bool:
    """Whether the line answers ``guest-sync-delimited`` with this id."""
    # JSON knows no difference between true and 1 for Python's ==.
    return line.startswith(DELIMITER) and _is_number(read(line), number)


def _is_number(reply: Reply, number: int) -> bool:
    return isinstance(reply, Result) and type(reply.value) is int and reply.value == number


def request(command: str, arguments: dict[str, object] | None = None) -> bytes:
    """A command as the agent reads it."""
    message: dict[str, object] = {"execute": command}
    if arguments:
        message["arguments"] = arguments
    return msgspec.json.encode(message) + b"\n"


def mark(number: int) -> bytes:
    """Begin anew: the delimiter makes the agent forget half a command, the answer has it in front, and this number."""
    return DELIMITER + request("guest-sync-delimited", {"id": number})
