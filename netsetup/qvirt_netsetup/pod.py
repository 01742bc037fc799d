"""What takeover and masquerade share: which interface of a namespace is meant, and names. Pure.

Names are KubeVirt's, so that tools which know those find what they look for.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from qvirt_netsetup import ipam, nft
from qvirt_netsetup.errors import InterfaceMissing
from qvirt_netsetup.observed import Link, Observed, default_route
from qvirt_netsetup.request import InterfaceRequest

_HASHED = re.compile(r"pod([0-9a-f]{11})")
_HOLDERS = ("dummy", "ifb")


class Names(NamedTuple):
    """Of what is made for one interface of a namespace."""

    bridge: str
    tap: str
    #: What the interface itself is called while a guest has its name and addresses.
    nic: str
    table: str


def names(link: str) -> Names:
    """``eth0`` gives k6t-eth0, tap0 and eth0-nic; a hashed name passes its hash on; others are cut or hashed to fit."""
    table = f"qvirt-{link}"
    if link == "eth0":
        return Names("k6t-eth0", "tap0", "eth0-nic", table)
    hashed = _HASHED.fullmatch(link)
    short = hashed[1] if hashed else ipam.digest("pod", link)[:11]
    plain = link if not hashed and len(link) + 4 <= ipam.NAME_MAX else short
    return Names(f"k6t-{plain}", f"tap{short}", f"{plain}-nic", table)


def find_link(interface: InterfaceRequest, observed: Observed) -> Link:
    """The interface asked for, or that of the default route, or the only one there is.

    :raises InterfaceMissing: there is none such.
    """
    if interface.link:
        link = observed.link(interface.link)
        if link is None:
            raise InterfaceMissing(
                f"interface {interface.name}: the namespace has no {interface.link}; it has {_list(observed)}"
            )
        return link
    route = default_route(observed) or default_route(observed, v6=True)
    if route is not None and (link := observed.link(route.link)) is not None:
        return link
    candidates = [link for link in observed.links if _could_serve(link)]
    if len(candidates) != 1:
        raise InterfaceMissing(
            f"interface {interface.name}: no default route says which link is meant; name one of {_list(observed)}"
        )
    return candidates[0]


def _could_serve(link: Link) -> bool:
    return not link.loopback and not link.master and link.kind not in (*_HOLDERS, "bridge", "tun")


def _list(observed: Observed) -> str:
    return ", ".join(link.name for link in observed.links if _could_serve(link)) or "none"


def private_dhcp() -> tuple[nft.Steps, ...]:
    """DHCP doesn't cross the bridge: the guest's questions stay here, others' answers outside."""
    return (
        (*nft.dport("udp", 67), *nft.DROP),
        (*nft.dport("udp", 68), *nft.DROP),
    )


def private_ipv6() -> tuple[nft.Steps, ...]:
    """Nor do DHCPv6, router solicitations and router advertisements."""
    return (
        (*nft.dport("udp", 546), *nft.DROP),
        (*nft.dport("udp", 547), *nft.DROP),
        (*nft.icmpv6_type(133), *nft.DROP),
        (*nft.icmpv6_type(134), *nft.DROP),
    )
