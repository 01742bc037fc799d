"""A network of our own on a bare host: one bridge for all guests, masqueraded towards the world. Pure.

The host reaches guests at their addresses and they reach it at the gateway's; guests reach each other; nobody else begins a
connection to a guest. A filter of the host's own that drops forwarded packets can't be overruled from another table
(nftables: an accept ends one base chain, a drop ends all), so such a chain is reported with the remedy.
"""

from __future__ import annotations

from typing import Final

import msgspec

from qvirt_netsetup import ipam, nft, pod
from qvirt_netsetup.binding import Binding, Facts, base_lease
from qvirt_netsetup.desired import Absent, Desired, DesiredLink
from qvirt_netsetup.errors import RequestRefused
from qvirt_netsetup.observed import SCOPE_LINK, Address, Observed, default_route
from qvirt_netsetup.request import InterfaceRequest, NetworkRequest
from qvirt_netsetup.tenancy import Nic, State

BRIDGE: Final = "qvirt0"
TABLE: Final = "qvirt"
GATEWAY6: Final = "fe80::1"
_FORWARD4: Final = "net/ipv4/ip_forward"
_FORWARD6: Final = "net/ipv6/conf/all/forwarding"


def place(state: State, facts: Facts) -> State:
    """The state with the subnets chosen, if they weren't."""
    if state.subnet:
        return state
    subnet = ipam.choose_subnet(facts.observed, ignore=BRIDGE)
    subnet6 = ""
    if facts.has_ipv6:
        subnet6 = ipam.choose_subnet6(facts.observed, ignore=BRIDGE, seed=facts.machine_id)
    return msgspec.structs.replace(state, subnet=subnet, subnet6=subnet6)


def _taken(state: State) -> tuple[set[int], dict[str, str]]:
    """Numbers in use, and who has which MAC."""
    numbers: set[int] = set()
    macs: dict[str, str] = {}
    for tenant in state.tenants:
        for nic in tenant.nics:
            if nic.mode == "nat":
                numbers.add(int(ipam.bare(nic.address).rpartition(".")[2]))
                macs[nic.mac] = tenant.label
    return numbers, macs


def _uplink_mtu(observed: Observed) -> int:
    route = default_route(observed) or default_route(observed, v6=True)
    link = observed.link(route.link) if route else None
    return link.mtu if link else 1500


def decide(request: NetworkRequest, interface: InterfaceRequest, facts: Facts) -> Binding:
    """Addresses and set-up for one interface. `facts.state` has subnets and all interfaces decided before.

    :raises RequestRefused: another VM on this network has the MAC.
    :raises NoFreeNetwork: no address is left.
    """
    state = facts.state
    identity = (request.namespace, request.name, interface.name)
    mac = interface.mac.lower() or ipam.derive_mac(*identity)
    numbers, macs = _taken(state)
    if mac in macs:
        raise RequestRefused(
            f"interface {interface.name}: MAC {mac} is in use by {macs[mac]} on the same network; give another macAddress"
        )
    number = ipam.host_number(mac, numbers)
    address6 = ipam.host(state.subnet6, number) if state.subnet6 else ""
    nic = Nic(
        interface=interface.name,
        mode="nat",
        tap=ipam.derive_link("qv", *identity),
        mac=mac,
        bridge=BRIDGE,
        address=ipam.host(state.subnet, number),
        address6=address6,
    )
    mtu = _uplink_mtu(facts.observed)
    # A second interface on the same network must not bring a second default route.
    first = interface.name == request.interfaces[0].name
    gateway = ipam.bare(ipam.host(state.subnet, 1))
    lease = msgspec.structs.replace(
        base_lease(request, interface, facts.resolver, mac=mac, mtu=mtu),
        address=nic.address,
        gateway=gateway if first else "",
        server=gateway,
        address6=address6,
        gateway6=GATEWAY6 if address6 and first else "",
    )
    return Binding(nic=nic, mtu=mtu, desired=_desired(nic, mtu, facts), lease=lease)


def _gateway_addresses(state: State) -> tuple[Address, ...]:
    addresses = [Address(link=BRIDGE, address=ipam.host(state.subnet, 1))]
    if state.subnet6:
        addresses.append(Address(link=BRIDGE, address=ipam.host(state.subnet6, 1)))
        addresses.append(Address(link=BRIDGE, address=f"{GATEWAY6}/64", scope=SCOPE_LINK))
    return tuple(addresses)


def _desired(nic: Nic, mtu: int, facts: Facts) -> Desired:
    state = facts.state
    bridge = DesiredLink(
        name=BRIDGE,
        kind="bridge",
        # Of its own, or the bridge would change its MAC with every tap that comes and goes.
        mac=ipam.derive_mac(BRIDGE, facts.machine_id),
        mtu=mtu,
        up=True,
        addresses=_gateway_addresses(state),
    )
    tap = DesiredLink(name=nic.tap, mtu=mtu, master=BRIDGE, up=True)
    return Desired(
        links=(bridge, tap),
        sysctls=_sysctls(nic, facts),
        tables=(_nat_table(state),),
        optional_tables=(_bridge_table(),),
    )


def settings(observed: Observed) -> tuple[str, ...]:
    """The settings that decisions here depend on, or change by side effect; global ones first."""
    links = [link.name for link in observed.links if not link.loopback and link.name != BRIDGE]
    return (
        _FORWARD4,
        "net/ipv4/conf/all/accept_redirects",
        _FORWARD6,
        *(f"net/ipv4/conf/{link}/forwarding" for link in links),
        *(f"net/ipv6/conf/{link}/forwarding" for link in links),
        *(f"net/ipv6/conf/{link}/accept_ra" for link in links),
    )


def forwarding(facts: Facts, *, v4: bool, v6: bool) -> tuple[tuple[str, str], ...]:
    """Settings that make the namespace a router, without losing its own IPv6 default route.

    A router ignores router advertisements unless told otherwise (accept_ra 2).
    """
    values = [(_FORWARD4, "1")] if v4 else []
    if v6:
        values += [
            (key, "2")
            for key, value in facts.sysctls.items()
            if key.endswith("/accept_ra") and value == "1"
        ]
        values.append((_FORWARD6, "1"))
    return tuple(values)


def ipv6_of_bridge(nic: Nic) -> tuple[tuple[str, str], ...]:
    """Settings of a bridge that is an IPv6 router at `GATEWAY6`, and of a port that has no IPv6 of its own."""
    return (
        (f"net/ipv6/conf/{nic.bridge}/addr_gen_mode", "1"),
        (f"net/ipv6/conf/{nic.bridge}/accept_ra", "0"),
        (f"net/ipv6/conf/{nic.bridge}/disable_ipv6", "0"),
        (f"net/ipv6/conf/{nic.tap}/disable_ipv6", "1"),
    )


def _sysctls(nic: Nic, facts: Facts) -> tuple[tuple[str, str], ...]:
    if not facts.state.subnet6:
        return forwarding(facts, v4=True, v6=False)
    beyond = default_route(facts.observed, v6=True) is not None
    return (*forwarding(facts, v4=True, v6=beyond), *ipv6_of_bridge(nic))


def _nat_table(state: State) -> nft.Table:
    subnets = [subnet for subnet in (state.subnet, state.subnet6) if subnet]
    postrouting = nft.Chain(
        name="postrouting",
        type="nat",
        hook="postrouting",
        priority=100,
        rules=tuple(
            (*nft.source(subnet), *nft.oif(BRIDGE, equal=False), *nft.MASQUERADE)
            for subnet in subnets
        ),
    )
    forward = nft.Chain(
        name="forward",
        type="filter",
        hook="forward",
        priority=0,
        rules=(
            (*nft.iif(BRIDGE), *nft.ACCEPT),
            (*nft.oif(BRIDGE), *nft.ANSWERS, *nft.ACCEPT),
            (*nft.oif(BRIDGE), *nft.DROP),
        ),
    )
    return nft.Table(family="inet", name=TABLE, chains=(postrouting, forward))


def _bridge_table() -> nft.Table:
    """DHCP and router advertisements stay between a guest and its own launcher: no guest can configure another."""
    private = (*pod.private_dhcp(), *pod.private_ipv6())
    forward = nft.Chain(name="forward", type="filter", hook="forward", priority=0, rules=private)
    return nft.Table(family="bridge", name=TABLE, chains=(forward,))


def undo(nic: Nic) -> Desired:
    """What one interface leaves."""
    return Desired(absent=(Absent(name=nic.tap, kinds=("tun",)),))


def undo_all() -> Desired:
    """What the last one leaves."""
    return Desired(
        absent=(Absent(name=BRIDGE, kinds=("bridge",)),),
        absent_tables=(("inet", TABLE), ("bridge", TABLE)),
    )


def warnings(observed: Observed) -> tuple[str, ...]:
    """About filters of others that our own table can't overrule."""
    return tuple(
        f"packet filter chain {chain} drops forwarded packets by default: guests may reach this host and nothing beyond; allow the interface {BRIDGE} there, e.g. nft insert rule {chain} iifname {BRIDGE} accept; nft insert rule {chain} oifname {BRIDGE} accept"
        for chain in observed.dropping
        if chain.split()[0] in ("ip", "ip6", "inet")
    )
