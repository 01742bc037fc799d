"""DHCPv6 (RFC 8415, 3646): codec, and the answer to a guest's message. Pure; no bytes make it raise.

One client, one address, infinite lifetimes. Prefixes and temporary addresses are refused politely.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, NamedTuple

from qvirt_crds.report import Lease
from qvirt_netsetup import frames, ra

SERVER_PORT: Final = 547
CLIENT_PORT: Final = 546

SOLICIT, ADVERTISE, REQUEST, CONFIRM, RENEW, REBIND, REPLY, RELEASE, DECLINE = range(1, 10)
INFORMATION_REQUEST: Final = 11

CLIENT_ID, SERVER_ID, IA_NA, IA_TA, IAADDR, STATUS, RAPID_COMMIT = 1, 2, 3, 4, 5, 13, 14
DNS, SEARCH, IA_PD = 23, 24, 25

_SUCCESS, _NO_ADDRESS, _NOT_ON_LINK, _NO_PREFIX = 0, 2, 4, 6
_INFINITE: Final = 0xFFFFFFFF
#: DUID-LL (RFC 8415, 11.4) of our own MAC.
SERVER_DUID: Final = struct.pack("!HH", 3, 1) + frames.SERVER_MAC

Options = tuple[tuple[int, bytes], ...]


class Message(NamedTuple):
    """A message between client and server. Options keep their order and may repeat."""

    type: int
    xid: bytes
    options: Options

    def first(self, code: int) -> bytes | None:
        """The first option of that code."""
        return next((value for kind, value in self.options if kind == code), None)


def decode_options(data: bytes) -> Options | None:
    """Options, also those inside another option; None: damaged."""
    options: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            return None
        code, length = struct.unpack_from("!HH", data, at)
        at += 4
        if at + length > len(data):
            return None
        options.append((code, data[at : at + length]))
        at += length
    return tuple(options)


def encode_options(options: Options) -> bytes:
    """The opposite of `decode_options`."""
    return b"".join(struct.pack("!HH", code, len(value)) + value for code, value in options)


def decode(data: bytes) -> Message | None:
    """The message; None: damaged."""
    if len(data) < 4:
        return None
    options = decode_options(data[4:])
    return None if options is None else Message(data[0], data[1:4], options)


def encode(message: Message) -> bytes:
    """The opposite of `decode`."""
    return bytes([message.type]) + message.xid + encode_options(message.options)


def _status(code: int, text: str) -> tuple[int, bytes]:
    return STATUS, struct.pack("!H", code) + text.encode()


def _addresses(ia: bytes) -> list[bytes]:
    """The packed addresses in an IA_NA."""
    inner = decode_options(ia[12:]) if len(ia) >= 12 else None
    return [value[:16] for code, value in inner or () if code == IAADDR and len(value) >= 24]


def _grant(ia: bytes, lease: Lease) -> bytes:
    """Our one address; whatever else the guest believes to have ends now (lifetimes 0)."""
    own = frames.packed(lease.address6)
    given = own + struct.pack("!II", _INFINITE, _INFINITE)
    others = [address + bytes(8) for address in _addresses(ia) if address != own]
    inner = tuple((IAADDR, value) for value in (given, *others))
    return ia[:4] + struct.pack("!II", _INFINITE, _INFINITE) + encode_options(inner)


def _associations(request: Message, lease: Lease) -> Options:
    answers: list[tuple[int, bytes]] = []
    granted = False
    for code, value in request.options:
        if code == IA_NA and len(value) >= 12:
            if granted:  # a second association gets nothing: there is one address
                refusal = encode_options((_status(_NO_ADDRESS, "one address a guest"),))
                answers.append((IA_NA, value[:4] + bytes(8) + refusal))
            else:
                answers.append((IA_NA, _grant(value, lease)))
                granted = True
        elif code == IA_TA and len(value) >= 4:
            refusal = encode_options((_status(_NO_ADDRESS, "no temporary addresses"),))
            answers.append((IA_TA, value[:4] + refusal))
        elif code == IA_PD and len(value) >= 12:
            refusal = encode_options((_status(_NO_PREFIX, "no prefixes"),))
            answers.append((IA_PD, value[:4] + bytes(8) + refusal))
    return tuple(answers)


def _configuration(lease: Lease) -> Options:
    options = ((DNS, ra.nameservers(lease)), (SEARCH, ra.search_list(lease)))
    return tuple((code, value) for code, value in options if value)


def _confirm(request: Message, lease: Lease) -> Options | None:
    """Whether the guest's addresses suit this wire (RFC 8415, 18.3.3); None: it named none, so no answer."""
    network = ipaddress.IPv6Interface(lease.address6).network
    found = [address for code, ia in request.options if code == IA_NA for address in _addresses(ia)]
    if not found:
        return None
    if all(ipaddress.IPv6Address(address) in network for address in found):
        return (_status(_SUCCESS, ""),)
    return (_status(_NOT_ON_LINK, "not this network"),)


def _body(request: Message, lease: Lease) -> tuple[int, Options] | None:
    """Type and options of our answer."""
    match request.type:
        case 1:  # SOLICIT
            given = (*_associations(request, lease), *_configuration(lease))
            if request.first(RAPID_COMMIT) is not None:
                return REPLY, ((RAPID_COMMIT, b""), *given)
            return ADVERTISE, given
        case 3 | 5 | 6:  # REQUEST, RENEW, REBIND
            return REPLY, (*_associations(request, lease), *_configuration(lease))
        case 4:  # CONFIRM
            verdict = _confirm(request, lease)
            return None if verdict is None else (REPLY, verdict)
        case 8 | 9:  # RELEASE, DECLINE
            return REPLY, (_status(_SUCCESS, ""),)
        case 11:  # INFORMATION-REQUEST
            return REPLY, _configuration(lease)
        case _:
            return None


def answer(data: bytes, lease: Lease) -> tuple[Message, Message] | None:
    """The guest's message and our answer; None: none is due."""
    request = decode(data)
    if request is None or not lease.address6:
        return None
    client = request.first(CLIENT_ID)
    server = request.first(SERVER_ID)
    if client is None and request.type != INFORMATION_REQUEST:
        return None
    if server is not None and server != SERVER_DUID:
        return None  # meant for another server
    if server is None and request.type in (REQUEST, RENEW, RELEASE, DECLINE):
        return None
    if server is not None and request.type in (SOLICIT, CONFIRM, REBIND):
        return None  # RFC 8415, 16: to be discarded
    body = _body(request, lease)
    if body is None:
        return None
    kind, options = body
    identity = ((CLIENT_ID, client),) if client is not None else ()
    return request, Message(kind, request.xid, (*identity, (SERVER_ID, SERVER_DUID), *options))


def frame(reply: Message, lease: Lease, *, mac: bytes, target: bytes) -> bytes:
    """The frame that carries an answer to the guest's link-local address."""
    source = ra.router(lease)
    body = frames.udp(source, target, SERVER_PORT, CLIENT_PORT, encode(reply))
    return frames.ethernet6(mac, source, target, frames.UDP, body)
