"""DHCPv4: codec laws, an independent codec as the judge, and every kind of answer."""

from __future__ import annotations

import importlib
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qvirt_crds.report import Lease, Route
from qvirt_netsetup import dhcp, dhcp4, frames

MAC = "02:00:00:00:00:aa"
LEASE = Lease(
    mac=MAC,
    hostname="vm1",
    mtu=1450,
    address="10.127.0.7/24",
    gateway="10.127.0.1",
    server="10.127.0.1",
    dns=("192.0.2.53", "fd99::53", "192.0.2.54"),
    search=("svc.cluster.local", "shop.svc.cluster.local"),
    ntp=("192.0.2.123",),
    boot_file="pxelinux.0",
    tftp_server="192.0.2.69",
    private_options={"240": "private"},
)


def ask(kind: int, options: dict[int, bytes] | None = None, *, mac: str = MAC) -> dhcp4.Message:
    told = {dhcp4.TYPE: bytes([kind]), dhcp4.MAX_SIZE: struct.pack("!H", 1500), **(options or {})}
    return dhcp4.Message(1, 0x1234, told, chaddr=frames.mac_bytes(mac))


def framed(message: dhcp4.Message, *, mac: str = MAC) -> bytes:
    anywhere, everyone = bytes(4), b"\xff" * 4
    body = frames.udp(anywhere, everyone, 68, 67, dhcp4.encode(message))
    frame = frames.ethernet4(frames.BROADCAST, anywhere, everyone, body)
    return frame[:6] + frames.mac_bytes(mac) + frame[12:]


def answered(message: dhcp4.Message, lease: Lease = LEASE) -> dhcp4.Message:
    reply = dhcp4.answer(dhcp4.encode(message), lease)
    assert reply is not None
    return reply


options = st.dictionaries(
    st.integers(1, 254).filter(lambda code: code != dhcp4.OVERLOAD), st.binary(max_size=600)
)
four = st.binary(min_size=4, max_size=4)
messages = st.builds(
    dhcp4.Message,
    op=st.integers(0, 255),
    xid=st.integers(0, 2**32 - 1),
    options=options,
    flags=st.integers(0, 0xFFFF),
    ciaddr=four,
    yiaddr=four,
    siaddr=four,
    giaddr=four,
    chaddr=st.binary(min_size=6, max_size=6),
    file=st.binary(max_size=127).map(lambda data: data.rstrip(b"\0")),
    secs=st.integers(0, 0xFFFF),
)


@given(messages)
def test_round_trip(message: dhcp4.Message) -> None:
    assert dhcp4.decode(dhcp4.encode(message)) == message


@given(st.binary(max_size=700))
def test_no_bytes_raise(data: bytes) -> None:
    dhcp.respond(data, LEASE)
    header = framed(ask(dhcp4.DISCOVER))[:14]
    dhcp.respond(header + data, LEASE)
    dhcp4.answer(data, LEASE)


@given(st.data())
def test_no_damage_raises(data: st.DataObject) -> None:
    """Bytes changed and cut off anywhere in a good frame."""
    frame = bytearray(framed(ask(dhcp4.REQUEST)))
    for _ in range(data.draw(st.integers(1, 8))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    dhcp.respond(bytes(frame[: data.draw(st.integers(0, len(frame)))]), LEASE)


@given(messages)
def test_only_the_guests_own_mac_is_answered(message: dhcp4.Message) -> None:
    if message.chaddr != frames.mac_bytes(MAC):
        assert dhcp4.answer(dhcp4.encode(message), LEASE) is None


@given(st.integers(1, 255), st.booleans(), st.integers(0, 2000))
def test_answers_fit_into_what_the_client_takes(kind: int, said: bool, size: int) -> None:
    limit = {dhcp4.MAX_SIZE: struct.pack("!H", size)} if said else {dhcp4.MAX_SIZE: b""}
    lease = replace(LEASE, search=tuple(f"{'x' * 60}.{number}.test" for number in range(9)))
    reply = dhcp4.answer(dhcp4.encode(ask(kind, limit)), lease)
    if reply is not None:
        assert len(dhcp4.encode(reply)) + 28 <= max(576, min(size if said else 0, lease.mtu))
        assert {dhcp4.TYPE, dhcp4.SERVER} <= set(reply.options)


def test_pyroute2_reads_our_offer() -> None:
    judge = importlib.import_module("pyroute2.dhcp.dhcp4msg").dhcp4msg
    read = judge(buf=dhcp4.encode(answered(ask(dhcp4.DISCOVER)))).decode()
    assert read["yiaddr"] == "10.127.0.7"
    assert read["chaddr"] == MAC
    told = read["options"]
    assert told["message_type"] == 2
    assert told["subnet_mask"] == "255.255.255.0"
    assert told["router"] == ["10.127.0.1"]
    assert told["server_id"] == "10.127.0.1"
    assert told["name_server"] == ["192.0.2.53", "192.0.2.54"]


def test_we_read_pyroute2s_request() -> None:
    module = importlib.import_module("pyroute2.dhcp.dhcp4msg")
    sent = module.dhcp4msg(
        {
            "op": 1,
            "htype": 1,
            "hlen": 6,
            "xid": 77,
            "chaddr": MAC,
            "options": {"message_type": 3, "requested_ip": "10.127.0.7", "host_name": "x"},
        }
    )
    read = dhcp4.decode(bytes(sent.encode().buf))
    assert read is not None
    assert read.type == dhcp4.REQUEST
    assert read.xid == 77
    assert read.options[dhcp4.REQUESTED] == ipaddress.IPv4Address("10.127.0.7").packed
    reply = dhcp4.answer(bytes(sent.encode().buf), LEASE)
    assert reply is not None
    assert reply.type == dhcp4.ACK


def test_everything_that_a_lease_says() -> None:
    options = answered(ask(dhcp4.DISCOVER)).options
    assert options[dhcp4.MTU] == struct.pack("!H", 1450)
    assert options[dhcp4.HOSTNAME] == b"vm1"
    assert options[dhcp4.DOMAIN] == b"shop.svc.cluster.local"
    assert options[dhcp4.SEARCH].startswith(b"\x03svc\x07cluster\x05local\x00\x04shop")
    assert options[dhcp4.NTP] == bytes([192, 0, 2, 123])
    assert options[dhcp4.TFTP] == b"192.0.2.69"
    assert options[dhcp4.BOOTFILE] == b"pxelinux.0"
    assert options[240] == b"private"
    assert options[dhcp4.LEASE_TIME] == options[dhcp4.T1] == options[dhcp4.T2] == b"\xff" * 4
    # Option 121 would replace the router, and is not needed here.
    assert dhcp4.ROUTES not in options


REQUESTED = {dhcp4.REQUESTED: bytes([10, 127, 0, 7])}
OURS = {dhcp4.SERVER: bytes([10, 127, 0, 1])}
ELSEWHERE = {dhcp4.REQUESTED: bytes([10, 9, 9, 9])}
OTHER = {dhcp4.SERVER: bytes([10, 127, 0, 9])}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (ask(dhcp4.DISCOVER), dhcp4.OFFER),
        (ask(dhcp4.DISCOVER, ELSEWHERE), dhcp4.OFFER),
        (ask(dhcp4.REQUEST, REQUESTED | OURS), dhcp4.ACK),
        (ask(dhcp4.REQUEST, ELSEWHERE | OURS), dhcp4.NAK),
        # The client chose another server.
        (ask(dhcp4.REQUEST, REQUESTED | OTHER), None),
        # INIT-REBOOT: right, and wrong network.
        (ask(dhcp4.REQUEST, REQUESTED), dhcp4.ACK),
        (ask(dhcp4.REQUEST, ELSEWHERE), dhcp4.NAK),
        # RENEWING and REBINDING.
        (ask(dhcp4.REQUEST)._replace(ciaddr=bytes([10, 127, 0, 7])), dhcp4.ACK),
        (ask(dhcp4.REQUEST)._replace(ciaddr=bytes([10, 9, 9, 9])), dhcp4.NAK),
        (ask(dhcp4.INFORM)._replace(ciaddr=bytes([10, 127, 0, 200])), dhcp4.ACK),
        (ask(dhcp4.RELEASE)._replace(ciaddr=bytes([10, 127, 0, 7])), None),
        (ask(dhcp4.DECLINE, REQUESTED), None),
        (ask(dhcp4.OFFER), None),
        (ask(dhcp4.DISCOVER)._replace(op=2), None),
        (ask(dhcp4.DISCOVER)._replace(giaddr=bytes([10, 127, 0, 3])), None),
        (ask(0), None),
    ],
)
def test_answers(message: dhcp4.Message, expected: int | None) -> None:
    reply = dhcp4.answer(dhcp4.encode(message), LEASE)
    assert (reply.type if reply else None) == expected
    if reply is None:
        return
    if expected == dhcp4.NAK or message.type == dhcp4.INFORM:
        assert reply.yiaddr == bytes(4)
        assert dhcp4.LEASE_TIME not in reply.options
    else:
        assert reply.yiaddr == bytes([10, 127, 0, 7])


def sent_to(message: dhcp4.Message) -> tuple[bytes, str]:
    frame = dhcp4.frame(answered(message), LEASE)
    datagram = frames.parse(frame)
    assert datagram is not None
    return frame[:6], str(ipaddress.IPv4Address(datagram.destination))


def test_where_answers_go() -> None:
    mac = frames.mac_bytes(MAC)
    assert sent_to(ask(dhcp4.DISCOVER)) == (mac, "10.127.0.7")
    assert sent_to(ask(dhcp4.DISCOVER)._replace(flags=0x8000)) == (
        frames.BROADCAST,
        "255.255.255.255",
    )
    inform = ask(dhcp4.INFORM)._replace(ciaddr=bytes([10, 127, 0, 200]))
    assert sent_to(inform) == (mac, "10.127.0.200")
    assert sent_to(ask(dhcp4.INFORM)) == (frames.BROADCAST, "255.255.255.255")
    refused = ask(dhcp4.REQUEST, ELSEWHERE)
    assert sent_to(refused) == (frames.BROADCAST, "255.255.255.255")


def routes(lease: Lease) -> list[tuple[str, str]]:
    """Option 121 taken apart (RFC 3442)."""
    data = dhcp4.configuration(lease).get(dhcp4.ROUTES, b"")
    found: list[tuple[str, str]] = []
    while data:
        width, size = data[0], (data[0] + 7) // 8
        network = ipaddress.IPv4Address(data[1 : 1 + size].ljust(4, b"\0"))
        gateway = ipaddress.IPv4Address(data[1 + size : 5 + size])
        found.append((f"{network}/{width}", str(gateway)))
        data = data[5 + size :]
    return found


def test_classless_routes() -> None:
    calico = replace(LEASE, address="10.99.0.7/32", gateway="169.254.1.1")
    assert routes(calico) == [("169.254.1.1/32", "0.0.0.0"), ("0.0.0.0/0", "169.254.1.1")]
    more = replace(
        LEASE,
        routes=(
            Route(destination="10.96.0.0/12", gateway="10.127.0.9"),
            Route(destination="192.0.2.0/24"),
            Route(destination="fd00::/8", gateway="fe80::1"),
        ),
    )
    assert routes(more) == [
        ("10.96.0.0/12", "10.127.0.9"),
        ("192.0.2.0/24", "0.0.0.0"),
        ("0.0.0.0/0", "10.127.0.1"),
    ]
    assert routes(replace(LEASE, gateway="")) == []


def test_overloaded_options_are_read() -> None:
    """Options may go on in the fields for file and server name (RFC 2131, 4.1)."""
    data = bytearray(dhcp4.encode(ask(dhcp4.DISCOVER, {dhcp4.OVERLOAD: b"\x03"})))
    name = bytes((dhcp4.HOSTNAME, 2)) + b"vm" + bytes([dhcp4.END])
    wanted = bytes((dhcp4.HOSTNAME, 1)) + b"1" + bytes([dhcp4.END])
    data[108 : 108 + len(name)] = name
    data[44 : 44 + len(wanted)] = wanted
    read = dhcp4.decode(bytes(data))
    assert read is not None
    assert read.options[dhcp4.HOSTNAME] == b"vm1"
    assert read.file == b""
