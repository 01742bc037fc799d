"""What shall be: links, sysctls and tables as plain data, made by the bindings and compared in `qvirt_netsetup.plan`."""

from __future__ import annotations

from typing import Literal

from qvirt_crds.model import Model
from qvirt_netsetup.nft import Table
from qvirt_netsetup.observed import Address, Route

#: ``bridge`` and ``holder`` are made by us when missing; ``present`` must be there already (a NIC, a tap).
#: A holder is a link without traffic that only carries a name and addresses: dummy, or ifb where the kernel has no dummy.
Kind = Literal["bridge", "holder", "present"]


class DesiredLink(Model, frozen=True, kw_only=True):
    """A link; None leaves a property alone."""

    name: str
    kind: Kind = "present"
    #: Of a link that may have to be renamed first.
    index: int | None = None
    mac: str | None = None
    mtu: int | None = None
    up: bool | None = None
    #: Name of its bridge; empty: of none.
    master: str | None = None
    learning: bool | None = None
    #: All its addresses, apart from link-local IPv6 ones that the kernel made. None: leave them.
    addresses: tuple[Address, ...] | None = None


class Absent(Model, frozen=True, kw_only=True):
    """A link that shall not exist, if it is of one of these kinds: another's link of that name is left alone."""

    name: str
    kinds: tuple[str, ...]


class Desired(Model, frozen=True, kw_only=True):
    """Part of a namespace's set-up; says nothing about what it doesn't name."""

    links: tuple[DesiredLink, ...] = ()
    absent: tuple[Absent, ...] = ()
    routes: tuple[Route, ...] = ()
    #: In this order.
    sysctls: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    #: Tables that are worth having but whose lack (an old kernel) is only a warning.
    optional_tables: tuple[Table, ...] = ()
    absent_tables: tuple[tuple[str, str], ...] = ()
