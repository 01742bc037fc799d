"""The words of QMP, from a server's side: requests as data, and replies, events and greeting as bytes. Pure.

Source of the format: QEMU's ``docs/interop/qmp-spec``. An ``id`` is echoed as the client wrote it, whatever JSON it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

#: QEMU's class for everything that has none of its own.
GENERIC: Final = "GenericError"
NOT_FOUND: Final = "CommandNotFound"

_encoder = msgspec.json.Encoder()
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KNOWN_MEMBERS: Final = frozenset({"execute", "exec-oob", "arguments", "id"})


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A command that a client wants carried out."""

    command: str
    arguments: dict[str, object]
    #: The id's JSON text; None: it had none.
    id: bytes | None


class BadRequest(Exception):
    """What a client sent is no command; ``id`` as in `Request`, if it could be made out."""

    def __init__(self, description: str, id: bytes | None = None) -> None:
        self.description = description
        self.id = id
        super().__init__(description)


def parse(text: bytes) -> Request:
    """A client's message as a command.

    :raises BadRequest: it isn't one.
    """
    try:
        message = msgspec.json.decode(text)
        members = _members.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"not a JSON object: {error}") from None
    raw = members.get("id")
    id = None if raw is None else msgspec.json.format(bytes(raw), indent=-1)
    if unexpected := sorted(members.keys() - _KNOWN_MEMBERS):
        raise BadRequest(f"unexpected member {unexpected[0]!r}", id)
    if "exec-oob" in members:
        raise BadRequest("out-of-band execution is not offered here: use 'execute'", id)
    command = message.get("execute")
    arguments = message.get("arguments", {})
    if not isinstance(command, str):
        raise BadRequest("member 'execute' must be there, and a string", id)
    if not isinstance(arguments, dict):
        raise BadRequest("member 'arguments' must be an object", id)
    return Request(command=command, arguments=arguments, id=id)


def greeting(version: Mapping[str, object]) -> bytes:
    """The first line of a session. No capabilities are offered: commands of one client run in their order."""
    return _line(_encoder.encode({"QMP": {"version": version, "capabilities": []}}))


def success(value: object, id: bytes | None) -> bytes:
    """A reply. None becomes the empty object, as QEMU has it.

    :raises TypeError, ValueError, OverflowError: ``value`` can't be said in JSON.
    """
    return _reply(b'"return"', _encoder.encode({} if value is None else value), id)


def failure(error_class: str, description: str, id: bytes | None) -> bytes:
    """A reply that says what was wrong."""
    # Whatever the cause quotes, a reply must be one that can be sent.
    told = description.encode("utf-8", "replace").decode()
    return _reply(b'"error"', _encoder.encode({"class": error_class, "desc": told}), id)


def event(name: str, data: object, timestamp: Mapping[str, object]) -> bytes:
    """An event. ``data`` None: it has none.

    :raises TypeError, ValueError, OverflowError: ``data`` can't be said in JSON.
    """
    message: dict[str, object] = {"event": name, "timestamp": timestamp}
    if data is not None:
        message["data"] = data
    return _line(_encoder.encode(message))


def _reply(key: bytes, value: bytes, id: bytes | None) -> bytes:
    echo = b"" if id is None else b', "id": ' + id
    return _line(b"{" + key + b": " + value + echo + b"}")


def _line(text: bytes) -> bytes:
    # Clients read lines: an answer without one would never be seen.
    return text + b"\r\n"
