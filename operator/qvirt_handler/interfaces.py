"""``status.interfaces`` (pure): what the pod has, what was leased, what the guest's agent says; who is believed about what is KubeVirt's rule.

The pod's addresses are never replaced by what a guest says, as others are led to the guest by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from qvirt_crds.agent import AgentInterface
from qvirt_crds.meta import JsonObject
from qvirt_crds.report import GuestInterface

#: Interfaces that only the guest knows of.
MOST_UNKNOWN: Final = 10

#: 169.254.0.0/16 and fe80::/10, of which only fe80::/64 is ever used (RFC 4291, 2.5.6).
_LINK_LOCAL: Final = ("169.254.", "fe80:")
_DOMAIN: Final = "domain"
_AGENT: Final = "guest-agent"


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """The pod's side of a guest's network."""

    #: The primary family first.
    addresses: tuple[str, ...] = ()
    #: Name of the guest's interface on the pod network.
    primary: str = ""
    #: Name of the pod's own interface for each of the guest's.
    links: dict[str, str] = {}
    #: Interfaces behind address translation.
    masquerade: tuple[str, ...] = ()


def status(
    interfaces: Iterable[GuestInterface],
    told: tuple[AgentInterface, ...] | None,
    pod: Pod,
) -> list[JsonObject]:
    """The list, the one on the pod network first.

    :param told: by the agent; None: nothing (yet).
    """
    ordered = sorted(interfaces, key=lambda interface: interface.name != pod.primary)
    left = list(told or ())
    entries = [_entry(interface, _take(interface.mac, left), pod) for interface in ordered]
    known = {interface.mac for interface in ordered}
    # A bridge or VLAN in the guest has the address of the card below it; one without addresses of its own is no news.
    unknown = [i for i in left if i.mac not in known or i.addresses]
    return [*entries, *(_guests_own(interface) for interface in unknown[:MOST_UNKNOWN])]


def _take(mac: str, left: list[AgentInterface]) -> AgentInterface | None:
    """The guest's interface with that MAC; of several the first that has addresses."""
    found = [interface for interface in left if interface.mac == mac.lower()]
    if not found:
        return None
    best = next((interface for interface in found if interface.addresses), found[0])
    left.remove(best)
    return best


def _entry(interface: GuestInterface, told: AgentInterface | None, pod: Pod) -> JsonObject:
    own = interface.name == pod.primary
    leased = (interface.address, interface.address6) if interface.leased else ()
    addresses = pod.addresses if own and pod.addresses else tuple(filter(None, leased))
    if told is not None:
        inside = told.addresses
        if interface.name in pod.masquerade:
            inside = tuple(a for a in inside if not a.lower().startswith(_LINK_LOCAL))
        addresses = _filled(addresses, inside) if own else inside
    entry: JsonObject = {
        "name": interface.name,
        "mac": interface.mac,
        "infoSource": _DOMAIN if told is None else f"{_DOMAIN}, {_AGENT}",
        **_addresses(addresses),
    }
    if link := pod.links.get(interface.name):
        entry["podInterfaceName"] = link
    if told is not None:
        entry["interfaceName"] = told.name
    return entry


def _filled(ours: tuple[str, ...], inside: tuple[str, ...]) -> tuple[str, ...]:
    """Ours in the families that the guest has at all, and the guest's in the others."""
    guests = {_is_v6(address) for address in inside}
    present = {_is_v6(address) for address in ours}
    kept = [address for address in ours if _is_v6(address) in guests]
    return (*kept, *(address for address in inside if _is_v6(address) not in present))


def _guests_own(interface: AgentInterface) -> JsonObject:
    entry: JsonObject = {"interfaceName": interface.name, "infoSource": _AGENT}
    if interface.mac:
        entry["mac"] = interface.mac
    return entry | _addresses(interface.addresses)


def _addresses(addresses: tuple[str, ...]) -> JsonObject:
    return {"ipAddress": addresses[0], "ipAddresses": list(addresses)} if addresses else {}


def _is_v6(address: str) -> bool:
    return ":" in address
