"""Packet filter rules as data. `qvirt_netsetup.nftwire` turns them into netlink attributes.

Numbers are those of Linux' include/uapi/linux/netfilter/nf_tables.h and linux/netfilter.h.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, Literal

from qvirt_crds.model import Model

#: Linux, include/linux/socket.h; importing the socket module would cost this one its purity.
AF_INET: Final = 2
AF_INET6: Final = 10

Family = Literal["inet", "ip", "ip6", "bridge"]
Hook = Literal["prerouting", "input", "forward", "output", "postrouting"]
Verdict = Literal["accept", "drop"]
MetaKey = Literal["iifname", "oifname", "l4proto", "nfproto"]


class Meta(Model, frozen=True, kw_only=True, tag="meta"):
    """Load a property of the packet's way."""

    key: MetaKey


class Payload(Model, frozen=True, kw_only=True, tag="payload"):
    """Load bytes of the packet, counted from the start of a header."""

    base: Literal["link", "network", "transport"]
    offset: int
    length: int


class CtState(Model, frozen=True, kw_only=True, tag="ct"):
    """Load the state of the connection, masked to established and related."""


class Mask(Model, frozen=True, kw_only=True, tag="mask"):
    """Keep only these bits of what was loaded."""

    mask: bytes


class Compare(Model, frozen=True, kw_only=True, tag="compare"):
    """The rule goes on only if what was loaded equals (or not) this."""

    value: bytes
    equal: bool = True


class Count(Model, frozen=True, kw_only=True, tag="count"):
    """Count packets that come this far."""


class Decide(Model, frozen=True, kw_only=True, tag="decide"):
    """End the chain."""

    verdict: Verdict


class Masquerade(Model, frozen=True, kw_only=True, tag="masquerade"):
    """Replace the source by the address of the link that the packet leaves through."""


class Translate(Model, frozen=True, kw_only=True, tag="translate"):
    """Replace source or destination address."""

    which: Literal["source", "destination"]
    address: str


Step = Meta | Payload | CtState | Mask | Compare | Count | Decide | Masquerade | Translate
Steps = tuple[Step, ...]


class Chain(Model, frozen=True, kw_only=True):
    """A base chain and its rules, in order. What no rule decides is accepted."""

    name: str
    type: Literal["filter", "nat"]
    hook: Hook
    priority: int
    rules: tuple[Steps, ...] = ()


class Table(Model, frozen=True, kw_only=True):
    """A table that is ours alone, always replaced as a whole."""

    family: Family
    name: str
    chains: tuple[Chain, ...] = ()


def _name(key: MetaKey, link: str, equal: bool = True) -> Steps:
    return (Meta(key=key), Compare(value=link.encode().ljust(16, b"\0"), equal=equal))


def iif(link: str) -> Steps:
    """The packet came in through `link`."""
    return _name("iifname", link)


def oif(link: str, *, equal: bool = True) -> Steps:
    """The packet leaves through `link` (or not)."""
    return _name("oifname", link, equal)


def l4(protocol: Literal["tcp", "udp", "icmpv6"]) -> Steps:
    """The transport protocol."""
    number = {"tcp": 6, "udp": 17, "icmpv6": 58}[protocol]
    return (Meta(key="l4proto"), Compare(value=bytes([number])))


def dport(protocol: Literal["tcp", "udp"], port: int) -> Steps:
    """A destination port."""
    load = Payload(base="transport", offset=2, length=2)
    return (*l4(protocol), load, Compare(value=struct.pack("!H", port)))


def icmpv6_type(number: int) -> Steps:
    """An ICMPv6 message type."""
    load = Payload(base="transport", offset=0, length=1)
    return (*l4("icmpv6"), load, Compare(value=bytes([number])))


def ether_source(mac: str) -> Steps:
    """The sender's MAC, in the bridge family."""
    value = bytes.fromhex(mac.replace(":", ""))
    return (Payload(base="link", offset=6, length=6), Compare(value=value))


def family(address: str) -> Steps:
    """The packet is of the family of `address`; for tables of family inet."""
    number = AF_INET6 if ":" in address else AF_INET
    return (Meta(key="nfproto"), Compare(value=bytes([number])))


def _address(prefix: str, which: Literal["source", "destination"]) -> Steps:
    network = ipaddress.ip_network(prefix, strict=False)
    v6 = network.version == 6
    size = 16 if v6 else 4
    offset = {("source", False): 12, ("destination", False): 16}.get(
        (which, v6), 8 if which == "source" else 24
    )
    load = Payload(base="network", offset=offset, length=size)
    mask: Steps = () if network.prefixlen == size * 8 else (Mask(mask=network.netmask.packed),)
    return (*family(prefix), load, *mask, Compare(value=network.network_address.packed))


def source(prefix: str) -> Steps:
    """The source address lies in `prefix`; for tables of family inet."""
    return _address(prefix, "source")


def destination(prefix: str) -> Steps:
    """The destination address lies in `prefix`; for tables of family inet."""
    return _address(prefix, "destination")


#: Answers of connections that were let through before.
ANSWERS: Steps = (CtState(), Compare(value=b"\0\0\0\0", equal=False))
ACCEPT: Steps = (Count(), Decide(verdict="accept"))
DROP: Steps = (Count(), Decide(verdict="drop"))
MASQUERADE: Steps = (Count(), Masquerade())
