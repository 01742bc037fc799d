"""Router advertisements (RFC 4861, 8106): the default route, MTU and DNS of a guest's IPv6. Pure.

Addresses come by DHCPv6 (flags M and O; the prefix is on-link but not autonomous), so that the guest has the one that we know.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

from qvirt_crds.report import Lease
from qvirt_netsetup import frames

SOLICITATION: Final = 133
_ADVERTISEMENT: Final = 134
_ALL_NODES: Final = ipaddress.IPv6Address("ff02::1").packed
_ALL_NODES_MAC: Final = bytes.fromhex("333300000001")
_MANAGED_AND_OTHER: Final = 0xC0
_ON_LINK: Final = 0x80
_INFINITE: Final = 0xFFFFFFFF
#: Seconds (RFC 4861's highest). Advertisements are repeated long before: `qvirt_netsetup.dhcp`.
ROUTER_LIFETIME: Final = 9000


def router(lease: Lease) -> bytes:
    """The link-local address that our IPv6 answers come from."""
    return frames.packed(lease.gateway6) if lease.gateway6 else frames.link_local(frames.SERVER_MAC)


def is_solicitation(message: bytes) -> bool:
    """Whether an ICMPv6 message asks for routers."""
    return len(message) >= 8 and message[0] == SOLICITATION and message[1] == 0


def nameservers(lease: Lease) -> bytes:
    """The lease's IPv6 nameservers, packed one after the other."""
    return b"".join(frames.packed(server) for server in lease.dns if ":" in server)


def search_list(lease: Lease) -> bytes:
    """The search domains as labels."""
    return b"".join(frames.domain(name) for name in lease.search)


def _option(kind: int, body: bytes) -> bytes:
    padded = body + bytes(-(len(body) + 2) % 8)
    length = (len(padded) + 2) // 8
    return bytes((kind, length)) + padded if length < 256 else b""


def message(lease: Lease) -> bytes:
    """The advertisement, without its checksum."""
    lifetime = ROUTER_LIFETIME if lease.gateway6 else 0
    data = struct.pack("!BBHBBHII", _ADVERTISEMENT, 0, 0, 64, _MANAGED_AND_OTHER, lifetime, 0, 0)
    network = ipaddress.IPv6Interface(lease.address6).network
    if network.prefixlen < 128:
        prefix = struct.pack("!BBIII", network.prefixlen, _ON_LINK, _INFINITE, _INFINITE, 0)
        data += _option(3, prefix + network.network_address.packed)
    data += _option(5, struct.pack("!HI", 0, lease.mtu))
    if servers := nameservers(lease):
        data += _option(25, struct.pack("!HI", 0, _INFINITE) + servers)
    if domains := search_list(lease):
        data += _option(31, struct.pack("!HI", 0, _INFINITE) + domains)
    return data


def frame(lease: Lease, *, mac: bytes = b"", target: bytes = b"") -> bytes:
    """The advertisement for one host, or for all on the wire when none is given (or it has no address yet)."""
    if not target or target == bytes(16):
        mac, target = _ALL_NODES_MAC, _ALL_NODES
    source = router(lease)
    return frames.ethernet6(
        mac, source, target, frames.ICMPV6, frames.icmpv6(source, target, message(lease))
    )
