"""The comparison of what is with what shall be."""

from __future__ import annotations

from qvirt_netsetup import plan
from qvirt_netsetup.desired import Absent, Desired, DesiredLink
from qvirt_netsetup.nft import Table
from qvirt_netsetup.observed import Address, Link, Observed, Route

NIC = Link(index=5, name="eth0", mac="02:00:00:00:00:05", mtu=1500, up=True, kind="veth")
V4 = Address(link="eth0", address="10.88.0.5/24")
V6 = Address(link="eth0", address="fd88::5/64")
LOCAL = Address(link="eth0", address="fe80::5/64", scope=253)


def kinds(ops: tuple[plan.Op, ...]) -> list[str]:
    return [type(op).__name__ for op in ops]


def test_what_is_so_needs_nothing() -> None:
    observed = Observed(links=(NIC,), addresses=(V4, V6, LOCAL))
    wanted = DesiredLink(
        name="eth0", index=5, mac=NIC.mac, mtu=1500, up=True, addresses=(V4, V6), master=""
    )
    assert plan.diff(observed, Desired(links=(wanted,))) == ()


def test_a_holder_takes_the_name_of_what_is_renamed() -> None:
    observed = Observed(links=(NIC,), addresses=(V4,))
    desired = Desired(
        links=(
            DesiredLink(name="eth0", kind="holder", mac=NIC.mac, addresses=(V4,)),
            DesiredLink(name="eth0-nic", index=5, mac="02:00:00:00:00:99", addresses=(), up=True),
        )
    )
    ops = plan.diff(observed, desired)
    names = kinds(ops)
    assert names.index("Rename") < names.index("CreateLink") < names.index("AddAddress")
    assert names.index("DeleteAddress") < names.index("AddAddress")
    # A rename sets the link down, so it is set up although it was.
    assert ops[names.index("Rename")] == plan.Rename(index=5, old="eth0", new="eth0-nic")
    assert plan.SetLink(name="eth0-nic", up=True) in ops


def test_restoring_twice_does_not_delete_the_restored_interface() -> None:
    desired = Desired(
        links=(DesiredLink(name="eth0", index=5, up=True),),
        absent=(Absent(name="eth0", kinds=("dummy", "ifb", "veth")),),
    )
    assert plan.diff(Observed(links=(NIC,)), desired) == ()


def test_anothers_link_is_left_alone() -> None:
    observed = Observed(links=(Link(index=2, name="qvirt0", kind="vlan"),))
    desired = Desired(absent=(Absent(name="qvirt0", kinds=("bridge",)),))
    assert plan.diff(observed, desired) == ()


def test_ipv6_addresses_come_back_after_the_link_was_down() -> None:
    moved = Link(index=5, name="eth0-nic", mac="02:00:00:00:00:99", up=True)
    observed = Observed(links=(moved,), addresses=(Address(link="eth0-nic", address="fd88::5/64"),))
    wanted = DesiredLink(name="eth0", index=5, mac=NIC.mac, up=True, addresses=(V6,))
    assert plan.AddAddress(address=V6) in plan.diff(observed, Desired(links=(wanted,)))


def test_order_of_routes_and_tables() -> None:
    default = Route(link="eth0", destination="0.0.0.0/0", gateway="169.254.1.1")
    host = Route(link="eth0", destination="169.254.1.1/32")
    desired = Desired(
        routes=(default, host),
        tables=(Table(family="inet", name="new"),),
        absent_tables=(("inet", "old"), ("inet", "never")),
    )
    ops = plan.diff(Observed(links=(NIC,), tables=(("inet", "old"),)), desired)
    assert ops == (
        plan.DeleteTable(family="inet", name="old"),
        plan.AddRoute(route=host),
        plan.AddRoute(route=default),
        plan.ReplaceTable(table=Table(family="inet", name="new")),
    )
