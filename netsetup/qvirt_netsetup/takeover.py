"""The guest takes over an interface of the namespace, MAC, addresses and all (KubeVirt's bridge binding). Pure.

The interface is renamed and bridged to the tap. Under its old name stands a holder that never carries a packet but keeps
MAC and addresses where the CNI plugin looks for them when it deletes the pod; without it, host rules leak.
"""

from __future__ import annotations

import ipaddress
from typing import Final

import msgspec

from qvirt_crds.report import Lease
from qvirt_crds.report import Route as LeaseRoute
from qvirt_netsetup import ipam, nft, pod
from qvirt_netsetup.binding import Binding, Facts, base_lease
from qvirt_netsetup.desired import Absent, Desired, DesiredLink
from qvirt_netsetup.errors import RequestRefused
from qvirt_netsetup.observed import PROTOCOL_KERNEL, Address, Observed, Route, is_v6
from qvirt_netsetup.request import InterfaceRequest, NetworkRequest
from qvirt_netsetup.tenancy import Nic, Original

_ARP_IGNORE: Final = "net/ipv4/conf/all/arp_ignore"
SETTINGS: Final = (_ARP_IGNORE,)


def _global(observed: Observed, link: str) -> tuple[Address, ...]:
    """Addresses that mean something beyond the link."""
    return tuple(
        address
        for address in observed.addresses_of(link)
        if not ipaddress.ip_interface(address.address).is_link_local
    )


def _original(facts: Facts, interface: InterfaceRequest) -> Original:
    observed = facts.observed
    link = pod.find_link(interface, observed)
    if link.master:
        raise RequestRefused(
            f"interface {interface.name}: {link.name} is a port of another bridge already; take it out first (ip link set {link.name} nomaster)"
        )
    routes = observed.routes_of(link.name)
    return Original(
        link=link,
        addresses=_global(observed, link.name),
        # Those of connected networks come back with their addresses.
        routes=tuple(route for route in routes if route.protocol != PROTOCOL_KERNEL),
        disable_ipv6=facts.sysctls.get(f"net/ipv6/conf/{link.name}/disable_ipv6", "0"),
    )


def decide(request: NetworkRequest, interface: InterfaceRequest, facts: Facts) -> Binding:
    """Set-up and lease for one interface.

    :raises InterfaceMissing: the namespace has no such interface.
    :raises RequestRefused: it is another bridge's.
    """
    original = _original(facts, interface)
    link = original.link
    names = pod.names(link.name)
    nic = Nic(
        interface=interface.name,
        mode="takeover",
        tap=names.tap,
        mac=interface.mac.lower() or link.mac,
        link=link.name,
        bridge=names.bridge,
        original=original,
    )
    index = [item.name for item in request.interfaces].index(interface.name)
    lease, warnings = _lease(request, interface, facts, nic, original, index)
    return Binding(
        nic=nic,
        mtu=link.mtu,
        desired=_desired(nic, original, lease, has_ipv6=facts.has_ipv6),
        lease=lease,
        warnings=warnings,
    )


def _desired(nic: Nic, original: Original, lease: Lease | None, *, has_ipv6: bool) -> Desired:
    link = original.link
    names = pod.names(link.name)
    fresh = ipam.derive_mac("nic", link.name, link.mac)
    links = (
        DesiredLink(
            name=names.nic,
            index=link.index,
            mac=fresh,
            master=names.bridge,
            # The network reflects the guest's own broadcasts (hairpin): learned here, they would lead its traffic astray.
            learning=False,
            addresses=(),
            up=True,
        ),
        DesiredLink(
            name=link.name,
            kind="holder",
            mac=link.mac,
            mtu=link.mtu,
            addresses=original.addresses,
        ),
        DesiredLink(name=names.bridge, kind="bridge", mac=fresh, mtu=link.mtu, up=True),
        DesiredLink(name=names.tap, mtu=link.mtu, master=names.bridge, up=True),
    )
    quiet = (names.nic, names.bridge, names.tap) if has_ipv6 else ()
    return Desired(
        links=links,
        sysctls=(
            # Even a holder that is down has a local route for its address, for which the namespace would answer ARP.
            (_ARP_IGNORE, "1"),
            *((f"net/ipv6/conf/{name}/disable_ipv6", "1") for name in quiet),
        ),
        optional_tables=(_table(nic, lease),),
    )


def _table(nic: Nic, lease: Lease | None) -> nft.Table:
    names = pod.names(nic.link)
    # What the guest sent comes back from a hairpin port; an old kernel takes its own neighbour solicitation for a duplicate.
    reflected = (*nft.iif(names.nic), *nft.ether_source(nic.mac), *nft.DROP)
    prerouting = nft.Chain(
        name="prerouting", type="filter", hook="prerouting", priority=-300, rules=(reflected,)
    )
    private: tuple[nft.Steps, ...] = ()
    if lease is not None and lease.address:
        private += pod.private_dhcp()
    if lease is not None and lease.address6:
        private += pod.private_ipv6()
    forward = nft.Chain(name="forward", type="filter", hook="forward", priority=0, rules=private)
    return nft.Table(family="bridge", name=names.table, chains=(prerouting, forward))


def _routes(routes: tuple[Route, ...], gateway: str) -> tuple[LeaseRoute, ...]:
    """What is reached neither by the default route nor on-link; the gateway's own host route goes without saying."""
    return tuple(
        LeaseRoute(destination=route.destination, gateway=route.gateway)
        for route in routes
        if ipaddress.ip_network(route.destination).prefixlen > 0
        and ipam.bare(route.destination) != gateway
    )


def _default(routes: tuple[Route, ...], *, v6: bool) -> str:
    found = [
        route
        for route in routes
        if is_v6(route.destination) == v6 and ipaddress.ip_network(route.destination).prefixlen == 0
    ]
    return min(found, key=lambda route: route.metric).gateway if found else ""


def _lease(
    request: NetworkRequest,
    interface: InterfaceRequest,
    facts: Facts,
    nic: Nic,
    original: Original,
    index: int,
) -> tuple[Lease | None, tuple[str, ...]]:
    v4 = [a.address for a in original.addresses if not is_v6(a.address)]
    v6 = [a.address for a in original.addresses if is_v6(a.address)]
    if not v4 and not v6:
        return None, ()  # a network without IPAM: whoever is out there answers
    gateway = _default(original.routes, v6=False)
    gateway6 = _default(original.routes, v6=True)
    warnings: tuple[str, ...] = ()
    if gateway6 and not ipaddress.ip_address(gateway6).is_link_local:
        warnings = (
            f"interface {interface.name}: the IPv6 default route through {gateway6} can't be announced to the guest, for a router advertisement names link-local routers only; set it in cloud-init",
        )
        gateway6 = ""
    routes4 = tuple(route for route in original.routes if not is_v6(route.destination))
    base = base_lease(request, interface, facts.resolver, mac=nic.mac, mtu=original.link.mtu)
    lease = msgspec.structs.replace(
        base,
        address=v4[0] if v4 else "",
        gateway=gateway,
        # KubeVirt's; seen by the guest only.
        server=f"169.254.75.{10 + index}",
        address6=v6[0] if v6 else "",
        gateway6=gateway6 if v6 else "",
        routes=_routes(routes4, gateway),
    )
    return lease, warnings


def undo(nic: Nic, observed: Observed) -> Desired:
    """The interface as it was: name, MAC, addresses and routes."""
    names = pod.names(nic.link)
    absent = (
        Absent(name=names.tap, kinds=("tun",)),
        Absent(name=names.bridge, kinds=("bridge",)),
        Absent(name=nic.link, kinds=("dummy", "ifb")),
    )
    tables = (("bridge", names.table),)
    original = nic.original
    if original is None or observed.by_index(original.link.index) is None:
        return Desired(absent=absent, absent_tables=tables)
    link = DesiredLink(
        name=original.link.name,
        index=original.link.index,
        mac=original.link.mac,
        mtu=original.link.mtu,
        master="",
        addresses=original.addresses,
        up=original.link.up,
    )
    key = f"net/ipv6/conf/{original.link.name}/disable_ipv6"
    return Desired(
        links=(link,),
        absent=absent,
        routes=original.routes,
        sysctls=((key, original.disable_ipv6),),
        absent_tables=tables,
    )


def settings(observed: Observed) -> tuple[str, ...]:
    """The settings that decisions here depend on, or change."""
    return (
        *SETTINGS,
        *(
            f"net/ipv6/conf/{link.name}/disable_ipv6"
            for link in observed.links
            if not link.loopback
        ),
    )
