"""Networks, addresses, names and nameservers."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_netsetup import ipam, pod, resolv
from qvirt_netsetup.errors import NoFreeNetwork
from qvirt_netsetup.observed import Address, Link, Observed, Route
from qvirt_netsetup.request import InterfaceRequest

prefixes = st.builds(
    lambda number, length: str(ipaddress.ip_network((number, length), strict=False)),
    st.integers(0, 2**32 - 1),
    st.integers(1, 32),
)


@given(st.lists(prefixes, max_size=8), st.lists(prefixes, max_size=4))
def test_a_chosen_subnet_overlaps_with_nothing(routes: list[str], addresses: list[str]) -> None:
    observed = Observed(
        routes=tuple(Route(link="eth0", destination=route) for route in routes),
        addresses=tuple(Address(link="eth0", address=address) for address in addresses),
    )
    try:
        chosen = ipaddress.ip_network(ipam.choose_subnet(observed, ignore="qvirt0"))
    except NoFreeNetwork:
        assert any(ipaddress.ip_network(route).prefixlen < 24 for route in routes + addresses)
        return
    assert chosen.is_private
    for other in routes + addresses:
        assert not chosen.overlaps(ipaddress.ip_network(other, strict=False))


def test_our_own_bridge_and_the_default_route_do_not_count() -> None:
    observed = Observed(
        addresses=(Address(link="qvirt0", address="10.127.0.1/24"),),
        routes=(Route(link="eth0", destination="0.0.0.0/0", gateway="192.0.2.1"),),
    )
    assert ipam.choose_subnet(observed, ignore="qvirt0") == "10.127.0.0/24"


def test_ula_depends_on_the_machine() -> None:
    one = ipam.choose_subnet6(Observed(), ignore="", seed="one")
    assert ipaddress.ip_network(one).subnet_of(ipaddress.ip_network("fd00::/8"))  # type: ignore[arg-type]
    assert one != ipam.choose_subnet6(Observed(), ignore="", seed="two")


@given(st.sets(st.integers(2, 254), max_size=252), st.text(max_size=20))
def test_a_number_is_never_given_twice(taken: set[int], mac: str) -> None:
    number = ipam.host_number(mac, taken)
    assert 2 <= number <= 254
    assert number not in taken
    assert number == ipam.host_number(mac, taken)


def test_a_full_network_says_so() -> None:
    with pytest.raises(NoFreeNetwork, match="stop a VM"):
        ipam.host_number("x", set(range(2, 255)))


@given(st.lists(st.text(), min_size=1))
def test_derived_macs_are_local_unicast(parts: list[str]) -> None:
    mac = ipam.derive_mac(*parts)
    assert re.fullmatch(r"02(:[0-9a-f]{2}){5}", mac)


def test_names_are_kubevirts_and_fit() -> None:
    assert pod.names("eth0")[:3] == ("k6t-eth0", "tap0", "eth0-nic")
    hashed = "16477688c0e"
    assert pod.names(f"pod{hashed}")[:3] == (f"k6t-{hashed}", f"tap{hashed}", f"{hashed}-nic")


@given(st.text(min_size=1, max_size=15))
def test_names_fit_and_differ(link: str) -> None:
    names = pod.names(link)
    assert all(len(name) <= 15 for name in names[:3] if link.isascii())
    assert len({link, *names[:3]}) == 4


def test_which_interface() -> None:
    loopback = Link(index=1, name="lo", loopback=True)
    one, two = Link(index=2, name="ens3", kind="veth"), Link(index=3, name="ens4", kind="veth")
    default = Route(link="ens4", destination="0.0.0.0/0", gateway="10.0.0.1")
    anything = InterfaceRequest(name="default", mode="takeover")
    assert pod.find_link(anything, Observed(links=(loopback, one))) is one
    both = Observed(links=(loopback, one, two), routes=(default,))
    assert pod.find_link(anything, both) is two
    named = InterfaceRequest(name="default", mode="takeover", link="ens3")
    assert pod.find_link(named, both) is one


@given(st.text())
def test_any_resolv_conf_is_read(text: str) -> None:
    resolv.reachable(resolv.parse(text).nameservers)


def test_resolv_conf() -> None:
    read = resolv.parse(
        "# comment\nnameserver 127.0.0.53\nnameserver 192.0.2.53 # the office\n"
        "nameserver fe80::1%eth0\nnameserver fd99::53\nnameserver nonsense\n"
        "domain old.test\nsearch a.test b.test\noptions ndots:5\n"
    )
    assert read.search == ("a.test", "b.test")
    assert resolv.reachable(read.nameservers) == ("192.0.2.53", "fd99::53")
    assert resolv.with_subdomain(("x.test", "shop.svc.c", "svc.c"), "db") == (
        "db.shop.svc.c",
        "x.test",
        "shop.svc.c",
        "svc.c",
    )
    assert resolv.with_subdomain(("x.test",), "db") == ("x.test",)
