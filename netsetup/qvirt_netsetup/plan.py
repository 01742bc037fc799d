"""From what is to what shall be: a pure comparison that gives operations in a safe order.

The same function sets up, repairs half a set-up, and (given what was there before) takes everything down again.
"""

from __future__ import annotations

from qvirt_crds.model import Model
from qvirt_netsetup.desired import Desired, DesiredLink
from qvirt_netsetup.errors import InterfaceMissing
from qvirt_netsetup.nft import Table
from qvirt_netsetup.observed import SCOPE_LINK, Address, Link, Observed, Route, is_v6


class CreateLink(Model, frozen=True, kw_only=True, tag="create-link"):
    """Make a bridge or a holder, down."""

    name: str
    kind: str
    mac: str | None
    mtu: int | None


class DeleteLink(Model, frozen=True, kw_only=True, tag="delete-link"):
    """Remove a link."""

    name: str


class Rename(Model, frozen=True, kw_only=True, tag="rename"):
    """Set it down and rename it: names can't change while a link is up."""

    index: int
    old: str
    new: str


class SetLink(Model, frozen=True, kw_only=True, tag="set-link"):
    """Change one or more properties; None leaves one alone, ``master`` empty means of no bridge."""

    name: str
    mac: str | None = None
    mtu: int | None = None
    master: str | None = None
    up: bool | None = None


class SetLearning(Model, frozen=True, kw_only=True, tag="set-learning"):
    """Whether its bridge learns addresses on this port."""

    name: str
    learning: bool


class AddAddress(Model, frozen=True, kw_only=True, tag="add-address"):
    """Give an address to a link."""

    address: Address


class DeleteAddress(Model, frozen=True, kw_only=True, tag="delete-address"):
    """Take an address from a link."""

    link: str
    address: str


class AddRoute(Model, frozen=True, kw_only=True, tag="add-route"):
    """Add (or replace) a route of the main table."""

    route: Route


class SetSysctl(Model, frozen=True, kw_only=True, tag="set-sysctl"):
    """Write a kernel setting."""

    key: str
    value: str


class ReplaceTable(Model, frozen=True, kw_only=True, tag="replace-table"):
    """Replace a whole packet filter table in one transaction."""

    table: Table
    optional: bool = False


class DeleteTable(Model, frozen=True, kw_only=True, tag="delete-table"):
    """Remove a packet filter table."""

    family: str
    name: str


Op = (
    CreateLink
    | DeleteLink
    | Rename
    | SetLink
    | SetLearning
    | AddAddress
    | DeleteAddress
    | AddRoute
    | SetSysctl
    | ReplaceTable
    | DeleteTable
)


def _current(observed: Observed, desired: Desired, link: DesiredLink) -> Link | None:
    if link.index is not None:
        return observed.by_index(link.index)
    found = observed.link(link.name)
    # A link that another entry claims by its index only has this name for now: it is about to be renamed.
    claimed = any(found is not None and other.index == found.index for other in desired.links)
    return None if claimed else found


def _removals(observed: Observed, desired: Desired) -> list[Op]:
    kept = {link.index for link in desired.links if link.index is not None}
    ops: list[Op] = [
        DeleteTable(family=family, name=name)
        for family, name in desired.absent_tables
        if (family, name) in observed.tables
    ]
    for absent in desired.absent:
        link = observed.link(absent.name)
        if link is not None and link.index not in kept and link.kind in absent.kinds:
            ops.append(DeleteLink(name=link.name))
    return ops


def _existence(observed: Observed, desired: Desired, link: DesiredLink) -> list[Op]:
    current = _current(observed, desired, link)
    if current is not None:
        if current.name == link.name:
            return []
        return [Rename(index=current.index, old=current.name, new=link.name)]
    if link.kind == "present":
        raise InterfaceMissing(
            f"interface {link.name}: not in this network namespace; was it removed meanwhile?"
        )
    return [CreateLink(name=link.name, kind=link.kind, mac=link.mac, mtu=link.mtu)]


def _properties(observed: Observed, desired: Desired, link: DesiredLink) -> list[Op]:
    current = _current(observed, desired, link)
    created = current is None
    if current is None:
        current = Link(index=0, name=link.name, mac=link.mac or "", mtu=link.mtu or 0)
    ops: list[Op] = []
    if link.mac is not None and link.mac != current.mac:
        # Some drivers refuse a new MAC while up; a rename has set it down already.
        ops.append(SetLink(name=link.name, mac=link.mac, up=False if current.up else None))
    if link.mtu is not None and link.mtu != current.mtu:
        ops.append(SetLink(name=link.name, mtu=link.mtu))
    if link.master is not None:
        bridge = observed.link(link.master) if link.master else None
        wanted = bridge.index if bridge is not None else (-1 if link.master else 0)
        if created or current.master != wanted:
            ops.append(SetLink(name=link.name, master=link.master))
    if link.learning is not None and (current.learning != link.learning or link.master):
        ops.append(SetLearning(name=link.name, learning=link.learning))
    return ops


def _automatic(address: Address) -> bool:
    return is_v6(address.address) and address.scope == SCOPE_LINK


def _addresses(
    observed: Observed, desired: Desired, link: DesiredLink
) -> tuple[list[Op], list[Op]]:
    """What goes, and what comes."""
    if link.addresses is None:
        return [], []
    current = _current(observed, desired, link)
    have = observed.addresses_of(current.name) if current else ()
    wanted = {address.address for address in link.addresses}
    kept = {address.address for address in have}
    gone: list[Op] = [
        DeleteAddress(link=link.name, address=address.address)
        for address in have
        if address.address not in wanted and not _automatic(address)
    ]
    # A rename and a new MAC set the link down, which drops its IPv6 addresses: those are added again.
    fresh = current is None or current.name != link.name or (link.mac or current.mac) != current.mac
    new: list[Op] = [
        AddAddress(address=address)
        for address in link.addresses
        if address.address not in kept or (fresh and is_v6(address.address))
    ]
    return gone, new


def _state(observed: Observed, desired: Desired, link: DesiredLink) -> list[Op]:
    current = _current(observed, desired, link)
    if link.up is None:
        return []
    moved = current is not None and (
        current.name != link.name or (link.mac is not None and link.mac != current.mac)
    )
    now = current is not None and current.up and not moved
    return [] if now == link.up else [SetLink(name=link.name, up=link.up)]


def _routes(desired: Desired) -> list[Op]:
    # A route through a link that was down for a moment is gone although it was observed: routes are replaced, not compared.
    ordered = sorted(desired.routes, key=lambda route: (bool(route.gateway), route.metric))
    return [AddRoute(route=route) for route in ordered]


def diff(observed: Observed, desired: Desired) -> tuple[Op, ...]:
    """The operations that make `desired` true, in an order in which each can succeed.

    Tables and links go first; then renames, new links, their properties, settings, addresses, links up, routes, tables.

    :raises InterfaceMissing: a link that must be there isn't.
    """
    ops = _removals(observed, desired)
    # Renames before creations: a holder may take over the name of the link that is renamed.
    existence = [op for link in desired.links for op in _existence(observed, desired, link)]
    ops += sorted(existence, key=lambda op: not isinstance(op, Rename))
    addresses = [_addresses(observed, desired, link) for link in desired.links]
    ops += [op for gone, _ in addresses for op in gone]
    ops += [op for link in desired.links for op in _properties(observed, desired, link)]
    ops += [SetSysctl(key=key, value=value) for key, value in desired.sysctls]
    ops += [op for link in desired.links for op in _state(observed, desired, link)]
    ops += [op for _, new in addresses for op in new]
    ops += _routes(desired)
    ops += [ReplaceTable(table=table) for table in desired.tables]
    ops += [ReplaceTable(table=table, optional=True) for table in desired.optional_tables]
    return tuple(ops)
