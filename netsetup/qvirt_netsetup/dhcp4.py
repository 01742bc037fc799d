"""DHCPv4 (RFC 2131, 2132, 3396, 3397, 3442): codec, and the answer to a guest's message. Pure; no bytes make it raise."""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, NamedTuple

from qvirt_crds.report import Lease
from qvirt_netsetup import frames

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
_COOKIE: Final = b"\x63\x82\x53\x63"
_FIXED: Final = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_BROADCAST_FLAG: Final = 0x8000
#: Clients must take 576 bytes of IP packet, so this much DHCP (RFC 2131, 2); more only if they say so (option 57).
_MINIMUM_MESSAGE: Final = 548
_PADDED: Final = 300
#: Infinite: a guest that renewed would send to the server's address, which may not exist anywhere but here.
_INFINITE: Final = b"\xff\xff\xff\xff"
#: Server identifier when nothing better is known (KubeVirt's fake bridge address).
_FALLBACK_SERVER: Final = "169.254.75.10"

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)

PAD, MASK, ROUTER, DNS, HOSTNAME, DOMAIN, MTU, NTP = 0, 1, 3, 6, 12, 15, 26, 42
REQUESTED, LEASE_TIME, OVERLOAD, TYPE, SERVER, MESSAGE, MAX_SIZE = 50, 51, 52, 53, 54, 56, 57
T1, T2, CLIENT_ID, TFTP, BOOTFILE, SEARCH, ROUTES, END = 58, 59, 61, 66, 67, 119, 121, 255


class Message(NamedTuple):
    """A DHCP message. Addresses are packed; options are joined (RFC 3396) and in order of their first appearance."""

    op: int
    xid: int
    options: dict[int, bytes]
    flags: int = 0
    ciaddr: bytes = bytes(4)
    yiaddr: bytes = bytes(4)
    siaddr: bytes = bytes(4)
    giaddr: bytes = bytes(4)
    chaddr: bytes = bytes(6)
    file: bytes = b""
    secs: int = 0

    @property
    def type(self) -> int:
        """Option 53; 0 without one."""
        value = self.options.get(TYPE, b"")
        return value[0] if len(value) == 1 else 0


def _read_options(area: bytes, options: dict[int, bytes]) -> bool:
    at = 0
    while at < len(area):
        code = area[at]
        if code == END:
            return True
        if code == PAD:
            at += 1
            continue
        if at + 1 >= len(area) or at + 2 + area[at + 1] > len(area):
            return False
        length = area[at + 1]
        options[code] = options.get(code, b"") + area[at + 2 : at + 2 + length]
        at += 2 + length
    return True  # some clients leave out the end mark


def decode(data: bytes) -> Message | None:
    """The message; None: damaged, or not Ethernet, or not DHCP."""
    if len(data) < _FIXED.size + 4 or data[_FIXED.size : _FIXED.size + 4] != _COOKIE:
        return None
    op, htype, hlen, _, xid, secs, flags, ci, yi, si, gi, ch, sname, file = _FIXED.unpack_from(data)
    if htype != 1 or hlen != 6:
        return None
    options: dict[int, bytes] = {}
    if not _read_options(data[_FIXED.size + 4 :], options):
        return None
    overload = options.pop(OVERLOAD, b"\0")
    areas = {b"\1": (file,), b"\2": (sname,), b"\3": (file, sname)}.get(overload, ())
    if not all(_read_options(area, options) for area in areas):
        return None
    plain = b"" if file in areas else file.rstrip(b"\0")
    return Message(op, xid, options, flags, ci, yi, si, gi, ch[:6], plain, secs)


def _write_option(code: int, value: bytes) -> bytes:
    parts = [value[at : at + 255] for at in range(0, len(value), 255)] or [b""]
    return b"".join(bytes((code, len(part))) + part for part in parts)


def encode(message: Message) -> bytes:
    """The bytes of a message, padded to the 300 that old relays and clients want. Long options are split."""
    fixed = _FIXED.pack(
        message.op,
        1,
        6,
        0,
        message.xid,
        message.secs,
        message.flags,
        message.ciaddr,
        message.yiaddr,
        message.siaddr,
        message.giaddr,
        message.chaddr,
        b"",
        message.file[:127],
    )
    options = b"".join(_write_option(code, value) for code, value in message.options.items())
    return (fixed + _COOKIE + options + bytes([END])).ljust(_PADDED, b"\0")


def _v4(texts: tuple[str, ...]) -> bytes:
    found = b""
    for text in texts:
        try:
            found += ipaddress.IPv4Address(text).packed
        except ValueError:
            continue  # IPv6 ones belong to DHCPv6
    return found


def _route(destination: str, gateway: bytes) -> bytes:
    network = ipaddress.IPv4Network(destination, strict=False)
    significant = network.network_address.packed[: (network.prefixlen + 7) // 8]
    return bytes([network.prefixlen]) + significant + gateway


def _classless(lease: Lease) -> bytes:
    """Option 121: only when there is more than a gateway on the guest's own network, for it replaces option 3."""
    interface = ipaddress.IPv4Interface(lease.address)
    gateway = _v4((lease.gateway,)) if lease.gateway else b""
    off_link = bool(gateway) and ipaddress.IPv4Address(gateway) not in interface.network
    extra = [route for route in lease.routes if ":" not in route.destination]
    if not off_link and not extra:
        return b""
    encoded = _route(f"{lease.gateway}/32", bytes(4)) if off_link else b""
    for route in extra:
        encoded += _route(route.destination, _v4((route.gateway,)) or bytes(4))
    return encoded + (_route("0.0.0.0/0", gateway) if gateway else b"")


def _search(domains: tuple[str, ...]) -> bytes:
    """Option 119, as many domains as fit into one option."""
    encoded = b""
    for name in domains:
        longer = encoded + frames.domain(name)
        if len(longer) > 255:
            break
        encoded = longer
    return encoded


def _longest(domains: tuple[str, ...]) -> bytes:
    longest = max(domains, key=len, default="")
    return longest.encode("ascii", "ignore")[:255]


def server_id(lease: Lease) -> bytes:
    """Our address as the guest sees it."""
    return _v4((lease.server,)) or _v4((lease.gateway,)) or _v4((_FALLBACK_SERVER,))


def _text(value: str) -> bytes:
    return value.encode("utf-8")[:255]


def configuration(lease: Lease) -> dict[int, bytes]:
    """Everything that a guest is told beside its address and lease time, most important first."""
    interface = ipaddress.IPv4Interface(lease.address)
    options = {
        MASK: interface.netmask.packed,
        ROUTER: _v4((lease.gateway,)),
        ROUTES: _classless(lease),
        MTU: struct.pack("!H", lease.mtu) if 68 <= lease.mtu <= 65535 else b"",
        DNS: _v4(lease.dns),
        HOSTNAME: _text(lease.hostname),
        DOMAIN: _longest(lease.search),
        TFTP: _text(lease.tftp_server),
        BOOTFILE: _text(lease.boot_file),
        NTP: _v4(lease.ntp),
        SEARCH: _search(lease.search),
    }
    for code, value in lease.private_options.items():
        if code.isdecimal() and 224 <= int(code) <= 254:
            options[int(code)] = _text(value)
    return {code: value for code, value in options.items() if value}


def _room(request: Message, lease: Lease) -> int:
    value = request.options.get(MAX_SIZE, b"")
    said = struct.unpack("!H", value)[0] - 28 if len(value) == 2 else 0
    return max(_MINIMUM_MESSAGE, min(said, lease.mtu - 28))


def _fit(options: dict[int, bytes], room: int) -> dict[int, bytes]:
    """As many as fit, in order."""
    left = room - _FIXED.size - len(_COOKIE) - 1
    kept: dict[int, bytes] = {}
    for code, value in options.items():
        size = len(_write_option(code, value))
        if size <= left:
            kept[code] = value
            left -= size
    return kept


def _reply(request: Message, lease: Lease, kind: int) -> Message:
    options = {TYPE: bytes([kind]), SERVER: server_id(lease)}
    if CLIENT_ID in request.options:  # RFC 6842
        options[CLIENT_ID] = request.options[CLIENT_ID]
    if kind != NAK:
        if request.type != INFORM:
            options |= {LEASE_TIME: _INFINITE, T1: _INFINITE, T2: _INFINITE}
        options |= configuration(lease)
    else:
        options[MESSAGE] = f"this network's address for you is {lease.address}".encode()
    given = kind != NAK and request.type != INFORM
    return Message(
        op=2,
        xid=request.xid,
        options=_fit(options, _room(request, lease)),
        flags=request.flags,
        ciaddr=request.ciaddr if kind == ACK else bytes(4),
        yiaddr=frames.packed(lease.address) if given else bytes(4),
        siaddr=_v4((lease.tftp_server,)) if kind != NAK else bytes(4),
        chaddr=request.chaddr,
        file=_text(lease.boot_file) if kind != NAK else b"",
    )


def _kind(request: Message, lease: Lease) -> int:
    """The type of our answer; 0: none."""
    if request.type == DISCOVER:
        return OFFER
    if request.type == INFORM:
        return ACK
    if request.type != REQUEST:
        return 0
    chosen = request.options.get(SERVER)
    if chosen is not None and chosen != server_id(lease):
        return 0  # the guest took another server's offer
    wanted = request.options.get(REQUESTED) or request.ciaddr
    return ACK if wanted == frames.packed(lease.address) else NAK


def answer(data: bytes, lease: Lease) -> Message | None:
    """Our answer to a message of the guest; None: none is due.

    Only the guest's own MAC is answered, and never a relay: the wire has nobody else on it.
    """
    request = decode(data)
    if request is None or request.op != 1 or request.giaddr != bytes(4) or not lease.address:
        return None
    if request.chaddr != frames.mac_bytes(lease.mac):
        return None
    kind = _kind(request, lease)
    return _reply(request, lease, kind) if kind else None


def frame(reply: Message, lease: Lease) -> bytes:
    """The frame that carries an answer to where RFC 2131, 4.1 wants it."""
    mac = reply.chaddr
    target = reply.yiaddr if reply.ciaddr == bytes(4) else reply.ciaddr
    asked = reply.ciaddr == bytes(4) and reply.flags & _BROADCAST_FLAG
    if reply.type == NAK or asked or target == bytes(4):
        mac, target = frames.BROADCAST, b"\xff" * 4
    source = server_id(lease)
    body = frames.udp(source, target, SERVER_PORT, CLIENT_PORT, encode(reply))
    return frames.ethernet4(mac, source, target, body)
