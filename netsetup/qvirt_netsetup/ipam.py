"""Choosing networks, addresses and names. Pure, and stable: the same VM gets the same ones again if it can."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable
from typing import Final

from qvirt_netsetup.errors import NoFreeNetwork
from qvirt_netsetup.observed import Observed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Of a link's name (Linux, IFNAMSIZ without the final zero).
NAME_MAX: Final = 15

#: Tried in this order. Seldom used ranges of RFC 1918 first; other tools' favourites (10.0.x, 172.17, 192.168.122) are left out.
_CANDIDATES4: Final = (
    *(f"10.127.{third}.0/24" for third in range(256)),
    *(f"172.29.{third}.0/24" for third in range(256)),
    *(f"192.168.{third}.0/24" for third in range(200, 250)),
)


def digest(*parts: str) -> str:
    """A short name for several strings: hexadecimal, no two different lists give the same text by joining."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def derive_mac(*parts: str) -> str:
    """A locally administered unicast MAC that depends on nothing but `parts`."""
    text = digest("mac", *parts)
    return ":".join(("02", *(text[at : at + 2] for at in range(0, 10, 2))))


def derive_link(prefix: str, *parts: str) -> str:
    """A link name of at most 15 bytes that depends on nothing but `parts`."""
    return (prefix + digest("link", *parts))[:NAME_MAX]


def _candidates6(seed: str) -> Iterable[str]:
    """Unique local prefixes (RFC 4193) with a global id that depends on the machine."""
    text = digest("ula", seed)
    for subnet in range(256):
        yield f"fd{text[0:2]}:{text[2:6]}:{text[6:10]}:{subnet:x}::/64"


def _used(observed: Observed, ignore: str) -> list[Network]:
    used: list[Network] = [
        ipaddress.ip_interface(address.address).network
        for address in observed.addresses
        if address.link != ignore
    ]
    routes = [
        ipaddress.ip_network(route.destination, strict=False)
        for route in observed.routes
        if route.link != ignore
    ]
    used += [network for network in routes if network.prefixlen > 0]
    return used


def _first_free(candidates: Iterable[str], used: Collection[Network]) -> str:
    for candidate in candidates:
        network = ipaddress.ip_network(candidate)
        if not any(other.version == network.version and network.overlaps(other) for other in used):
            return candidate
    return ""


def choose_subnet(observed: Observed, *, ignore: str) -> str:
    """An IPv4 /24 that overlaps with nothing that this machine has an address in or a route to.

    :param ignore: our own bridge, which doesn't count.
    :raises NoFreeNetwork: every candidate overlaps.
    """
    free = _first_free(_CANDIDATES4, _used(observed, ignore))
    if not free:
        raise NoFreeNetwork(
            "network for guests: every candidate (10.127.0.0/16, 172.29.0.0/16, 192.168.200.0-249.0) overlaps with a route or address of this machine; remove one (ip route)"
        )
    return free


def choose_subnet6(observed: Observed, *, ignore: str, seed: str) -> str:
    """An IPv6 unique local /64; empty: none is free, which only a strange machine can bring about."""
    return _first_free(_candidates6(seed), _used(observed, ignore))


def host_number(mac: str, taken: Collection[int], *, first: int = 2, last: int = 254) -> int:
    """The number of a guest in its subnet: from its MAC, or the next free one.

    :raises NoFreeNetwork: all are taken.
    """
    size = last - first + 1
    start = int(digest("host", mac)[:8], 16) % size
    for step in range(size):
        number = first + (start + step) % size
        if number not in taken:
            return number
    raise NoFreeNetwork(
        f"address for a guest: all {size} of the network are taken; stop a VM first (qvirt list)"
    )


def host(subnet: str, number: int) -> str:
    """Address `number` of a subnet, with the prefix length: ``10.127.0.7/24``."""
    network = ipaddress.ip_network(subnet)
    return f"{network.network_address + number}/{network.prefixlen}"


def bare(address: str) -> str:
    """An address without its prefix length."""
    return address.partition("/")[0]
