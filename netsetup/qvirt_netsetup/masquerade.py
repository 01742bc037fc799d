"""A private network inside the namespace; the guest answers at the namespace's own addresses by NAT. Pure.

Addresses, names and rules are those of KubeVirt's masquerade binding. The namespace's interface is left as it is.
"""

from __future__ import annotations

import ipaddress
from typing import Final

import msgspec

from qvirt_netsetup import ipam, nat, nft, pod
from qvirt_netsetup.binding import Binding, Facts, base_lease
from qvirt_netsetup.desired import Absent, Desired, DesiredLink
from qvirt_netsetup.errors import RequestRefused
from qvirt_netsetup.observed import SCOPE_LINK, Address, Observed, is_v6
from qvirt_netsetup.request import InterfaceRequest, NetworkRequest
from qvirt_netsetup.tenancy import Nic

_NETWORK4: Final = "10.0.2.0/24"
_NETWORK6: Final = "fd10:0:2::/120"
_BRIDGE_MAC: Final = "02:00:00:00:00:00"
_LOOPBACK: Final = "127.0.0.0/8"


def _families(facts: Facts, link: str) -> tuple[bool, bool]:
    found = [
        address.address
        for address in facts.observed.addresses_of(link)
        if not ipaddress.ip_interface(address.address).is_link_local
    ]
    return any(not is_v6(item) for item in found), any(is_v6(item) for item in found)


def _free(interface: InterfaceRequest, network: str, observed: Observed, bridge: str) -> str:
    """The network, if nothing else in the namespace uses it."""
    try:
        wanted = ipaddress.ip_network(network, strict=False)
    except ValueError as error:
        raise RequestRefused(f"interface {interface.name}: network {network}: {error}") from error
    for address in observed.addresses:
        other = ipaddress.ip_interface(address.address).network
        if address.link != bridge and other.version == wanted.version and other.overlaps(wanted):
            raise RequestRefused(
                f"interface {interface.name}: network {network} overlaps with {address.address} on {address.link}; choose another vmNetworkCIDR"
            )
    return str(wanted)


def decide(request: NetworkRequest, interface: InterfaceRequest, facts: Facts) -> Binding:
    """Set-up and lease for one interface.

    :raises InterfaceMissing: the namespace has no such interface, or it has no address.
    :raises RequestRefused: the MAC is the bridge's, or the private network overlaps.
    """
    link = pod.find_link(interface, facts.observed)
    names = pod.names(link.name)
    mac = interface.mac.lower() or link.mac
    if mac == _BRIDGE_MAC:
        raise RequestRefused(
            f"interface {interface.name}: MAC {mac} is that of the gateway; give another macAddress"
        )
    v4, v6 = _families(facts, link.name)
    if not v4 and not v6:
        raise RequestRefused(
            f"interface {interface.name}: {link.name} has no address to answer at; use the bridge binding"
        )
    observed, bridge = facts.observed, names.bridge
    network = _free(interface, interface.network or _NETWORK4, observed, bridge) if v4 else ""
    network6 = _free(interface, interface.network6 or _NETWORK6, observed, bridge) if v6 else ""
    nic = Nic(
        interface=interface.name,
        mode="masquerade",
        tap=names.tap,
        mac=mac,
        link=link.name,
        bridge=bridge,
        address=ipam.host(network, 2) if v4 else "",
        address6=ipam.host(network6, 2) if v6 else "",
    )
    gateway = ipam.bare(ipam.host(network, 1)) if v4 else ""
    lease = msgspec.structs.replace(
        base_lease(request, interface, facts.resolver, mac=mac, mtu=link.mtu),
        address=nic.address,
        gateway=gateway,
        server=gateway,
        address6=nic.address6,
        gateway6=nat.GATEWAY6 if v6 else "",
    )
    desired = _desired(interface, nic, link.mtu, facts, network, network6)
    return Binding(nic=nic, mtu=link.mtu, desired=desired, lease=lease)


def _desired(
    interface: InterfaceRequest, nic: Nic, mtu: int, facts: Facts, network: str, network6: str
) -> Desired:
    addresses: list[Address] = []
    sysctls: list[tuple[str, str]] = []
    if network:
        addresses.append(Address(link=nic.bridge, address=ipam.host(network, 1)))
        # So that 127.0.0.1 in the namespace reaches the guest's ports.
        sysctls.append((f"net/ipv4/conf/{nic.bridge}/route_localnet", "1"))
    if network6:
        addresses.append(Address(link=nic.bridge, address=ipam.host(network6, 1)))
        addresses.append(Address(link=nic.bridge, address=f"{nat.GATEWAY6}/64", scope=SCOPE_LINK))
    forward = nat.forwarding(facts, v4=bool(network), v6=bool(network6))
    quiet = nat.ipv6_of_bridge(nic) if network6 else ()
    bridge = DesiredLink(
        name=nic.bridge,
        kind="bridge",
        mac=_BRIDGE_MAC,
        mtu=mtu,
        up=True,
        addresses=tuple(addresses),
    )
    tap = DesiredLink(name=nic.tap, mtu=mtu, master=nic.bridge, up=True)
    return Desired(
        links=(bridge, tap),
        sysctls=(*forward, *quiet, *sysctls),
        tables=(_table(interface, nic, network),),
    )


def _ports(interface: InterfaceRequest) -> tuple[nft.Steps, ...]:
    """A match for each port; one that matches everything when none is listed."""
    return tuple(
        nft.dport("udp" if port.protocol == "UDP" else "tcp", port.port) for port in interface.ports
    ) or ((),)


def _to(which: str, address: str) -> nft.Steps:
    kind = nft.Translate(
        which="source" if which == "source" else "destination", address=ipam.bare(address)
    )
    return (nft.Count(), kind)


def _table(interface: InterfaceRequest, nic: Nic, network: str) -> nft.Table:
    guests = [address for address in (nic.address, nic.address6) if address]
    ports = _ports(interface)
    inward = [
        (*nft.iif(nic.link), *nft.family(guest), *port, *_to("destination", guest))
        for guest in guests
        for port in ports
    ]
    outward = [
        (*nft.source(ipam.bare(guest)), *nft.oif(nic.bridge, equal=False), *nft.MASQUERADE)
        for guest in guests
    ]
    local: list[nft.Steps] = []
    if network:
        gateway = ipam.host(network, 1)
        local = [
            (*nft.destination(_LOOPBACK), *port, *_to("destination", nic.address)) for port in ports
        ]
        outward += [
            (*nft.oif(nic.bridge), *nft.source(_LOOPBACK), *port, *_to("source", gateway))
            for port in ports
        ]
    chains = (
        nft.Chain(
            name="prerouting", type="nat", hook="prerouting", priority=-100, rules=tuple(inward)
        ),
        nft.Chain(name="output", type="nat", hook="output", priority=-100, rules=tuple(local)),
        nft.Chain(
            name="postrouting", type="nat", hook="postrouting", priority=100, rules=tuple(outward)
        ),
    )
    return nft.Table(family="inet", name=pod.names(nic.link).table, chains=chains)


def undo(nic: Nic) -> Desired:
    """What one interface leaves."""
    return Desired(
        absent=(
            Absent(name=nic.tap, kinds=("tun",)),
            Absent(name=nic.bridge, kinds=("bridge",)),
        ),
        absent_tables=(("inet", pod.names(nic.link).table),),
    )
