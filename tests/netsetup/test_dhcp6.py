"""DHCPv6 and router advertisements: codec laws and every kind of answer. Real clients: test_nat."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qvirt_crds.report import Lease
from qvirt_netsetup import dhcp, dhcp6, frames, ra

MAC = "02:00:00:00:00:aa"
LEASE = Lease(
    mac=MAC,
    hostname="vm1",
    mtu=1450,
    address6="fd10:0:2::2/120",
    gateway6="fe80::1",
    dns=("192.0.2.53", "fd99::53"),
    search=("example.test",),
)
OWN = ipaddress.IPv6Address("fd10:0:2::2").packed
GUEST = frames.link_local(frames.mac_bytes(MAC))
CLIENT = (dhcp6.CLIENT_ID, b"\0\3\0\1" + frames.mac_bytes(MAC))
SERVER = (dhcp6.SERVER_ID, dhcp6.SERVER_DUID)


def ia(*addresses: str, iaid: bytes = b"iaid") -> tuple[int, bytes]:
    inner = tuple(
        (dhcp6.IAADDR, ipaddress.IPv6Address(address).packed + bytes(8)) for address in addresses
    )
    return dhcp6.IA_NA, iaid + bytes(8) + dhcp6.encode_options(inner)


def ask(kind: int, *options: tuple[int, bytes], client: bool = True) -> bytes:
    start = (CLIENT,) if client else ()
    return dhcp6.encode(dhcp6.Message(kind, b"xid", (*start, *options)))


def answered(kind: int, *options: tuple[int, bytes], client: bool = True) -> dhcp6.Message | None:
    answer = dhcp6.answer(ask(kind, *options, client=client), LEASE)
    return answer[1] if answer else None


def granted(message: dhcp6.Message) -> dict[bytes, int]:
    """Addresses of the first association, and for how long they are valid."""
    association = message.first(dhcp6.IA_NA)
    assert association is not None
    inner = dhcp6.decode_options(association[12:])
    assert inner is not None
    return {
        value[:16]: struct.unpack("!I", value[20:24])[0]
        for code, value in inner
        if code == dhcp6.IAADDR
    }


messages = st.builds(
    dhcp6.Message,
    type=st.integers(0, 255),
    xid=st.binary(min_size=3, max_size=3),
    options=st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=64))).map(tuple),
)


@given(messages)
def test_round_trip(message: dhcp6.Message) -> None:
    assert dhcp6.decode(dhcp6.encode(message)) == message


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    dhcp6.answer(data, LEASE)
    target = ipaddress.IPv6Address("ff02::1:2").packed
    for protocol, body in (
        (frames.ICMPV6, data),
        (frames.UDP, frames.udp(GUEST, target, 546, 547, data)),
    ):
        frame = frames.ethernet6(bytes(6), GUEST, target, protocol, body)
        dhcp.respond(frame[:6] + frames.mac_bytes(MAC) + frame[12:], LEASE)


@given(
    st.sampled_from([1, 3, 4, 5, 6, 8, 9, 11]),
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 5, 14, 25]), st.binary(max_size=60))),
)
def test_no_options_raise(kind: int, options: list[tuple[int, bytes]]) -> None:
    for server in ((), (SERVER,)):
        dhcp6.answer(ask(kind, *server, *options), LEASE)


def test_solicit_then_request() -> None:
    advertised = answered(dhcp6.SOLICIT, ia())
    assert advertised is not None
    assert advertised.type == dhcp6.ADVERTISE
    assert advertised.xid == b"xid"
    assert advertised.first(dhcp6.CLIENT_ID) == CLIENT[1]
    assert granted(advertised) == {OWN: 0xFFFFFFFF}
    reply = answered(dhcp6.REQUEST, SERVER, ia("fd10:0:2::2"))
    assert reply is not None
    assert reply.type == dhcp6.REPLY
    assert reply.first(dhcp6.DNS) == ipaddress.IPv6Address("fd99::53").packed
    assert reply.first(dhcp6.SEARCH) == b"\x07example\x04test\x00"


def test_rapid_commit() -> None:
    reply = answered(dhcp6.SOLICIT, ia(), (dhcp6.RAPID_COMMIT, b""))
    assert reply is not None
    assert reply.type == dhcp6.REPLY
    assert reply.first(dhcp6.RAPID_COMMIT) == b""


@pytest.mark.parametrize(
    ("kind", "server"), [(dhcp6.REQUEST, True), (dhcp6.RENEW, True), (dhcp6.REBIND, False)]
)
def test_a_wrong_address_ends_and_the_right_one_comes(kind: int, server: bool) -> None:
    reply = answered(kind, *((SERVER,) if server else ()), ia("fd66::1"))
    assert reply is not None
    assert granted(reply) == {OWN: 0xFFFFFFFF, ipaddress.IPv6Address("fd66::1").packed: 0}


def status(message: dhcp6.Message | None) -> int | None:
    value = message.first(dhcp6.STATUS) if message else None
    return struct.unpack("!H", value[:2])[0] if value else None


def test_confirm() -> None:
    assert status(answered(dhcp6.CONFIRM, ia("fd10:0:2::2"))) == 0
    assert status(answered(dhcp6.CONFIRM, ia("fd66::1"))) == 4
    assert answered(dhcp6.CONFIRM, ia()) is None


def test_release_decline_and_information() -> None:
    assert status(answered(dhcp6.RELEASE, SERVER, ia("fd10:0:2::2"))) == 0
    assert status(answered(dhcp6.DECLINE, SERVER, ia("fd10:0:2::2"))) == 0
    told = answered(dhcp6.INFORMATION_REQUEST, client=False)
    assert told is not None
    assert told.first(dhcp6.DNS)
    assert told.first(dhcp6.IA_NA) is None


def test_prefixes_and_second_addresses_are_refused_politely() -> None:
    reply = answered(
        dhcp6.SOLICIT, ia(), ia(iaid=b"more"), (dhcp6.IA_PD, b"pfx1" + bytes(8)), (4, b"temp")
    )
    assert reply is not None
    associations = [
        value for code, value in reply.options if code in (dhcp6.IA_NA, dhcp6.IA_TA, dhcp6.IA_PD)
    ]
    assert [value[:4] for value in associations] == [b"iaid", b"more", b"pfx1", b"temp"]
    assert granted(reply) == {OWN: 0xFFFFFFFF}


@pytest.mark.parametrize(
    ("kind", "options", "client"),
    [
        (dhcp6.SOLICIT, (ia(),), False),  # no client identifier
        (dhcp6.SOLICIT, (ia(), SERVER), True),  # must not name a server
        (dhcp6.REQUEST, (ia(),), True),  # must name one
        (dhcp6.REQUEST, (ia(), (dhcp6.SERVER_ID, b"another")), True),
        (dhcp6.REPLY, (ia(),), True),
        (12, (), True),  # relayed
    ],
)
def test_not_answered(kind: int, options: tuple[tuple[int, bytes], ...], client: bool) -> None:
    assert answered(kind, *options, client=client) is None


def solicitation(*, mac: str = MAC, hops: int = 255) -> bytes:
    routers = ipaddress.IPv6Address("ff02::2").packed
    message = frames.icmpv6(GUEST, routers, bytes([133]) + bytes(7))
    frame = bytearray(frames.ethernet6(bytes(6), GUEST, routers, frames.ICMPV6, message))
    frame[6:12] = frames.mac_bytes(mac)
    frame[21] = hops
    return bytes(frame)


def test_advertisement() -> None:
    (frame,) = dhcp.respond(solicitation(), LEASE).frames
    assert frame[:6] == frames.mac_bytes(MAC)
    datagram = frames.parse(frame)
    assert datagram is not None
    assert datagram.source == ipaddress.IPv6Address("fe80::1").packed
    assert datagram.destination == GUEST
    kind, _, _, hops, flags, lifetime = struct.unpack_from("!BBHBBH", datagram.payload)
    assert (kind, hops, flags, lifetime) == (134, 64, 0xC0, 9000)
    options: dict[int, bytes] = {}
    rest = datagram.payload[16:]
    while rest:
        options[rest[0]] = rest[2 : rest[1] * 8]
        rest = rest[rest[1] * 8 :]
    assert set(options) == {3, 5, 25, 31}
    assert options[3][:2] == bytes([120, 0x80])  # on-link, not autonomous
    assert options[5] == struct.pack("!HI", 0, 1450)
    # Summed up with its own checksum, a good message gives zero.
    pseudo = datagram.source + datagram.destination
    pseudo += struct.pack("!IHBB", len(datagram.payload), 0, 0, 58)
    assert frames.checksum(pseudo + datagram.payload) == 0


def test_no_default_route_without_a_router() -> None:
    message = ra.message(replace(LEASE, gateway6=""))
    assert struct.unpack_from("!H", message, 6) == (0,)


def test_not_solicited() -> None:
    assert not dhcp.respond(solicitation(mac="02:00:00:00:00:bb"), LEASE).frames
    assert not dhcp.respond(solicitation(hops=64), LEASE).frames
    assert not dhcp.respond(solicitation(), replace(LEASE, address6="")).frames
