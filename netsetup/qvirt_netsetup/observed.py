"""What the kernel has: links, addresses and routes as plain data, read by `qvirt_netsetup.apply`."""

from __future__ import annotations

from qvirt_crds.model import Model

#: Linux, include/uapi/linux/rtnetlink.h
SCOPE_LINK = 253
PROTOCOL_KERNEL = 2


class Link(Model, frozen=True, kw_only=True):
    """A network device. ``kind`` is empty for real hardware; ``master`` is an index, 0 for none."""

    index: int
    name: str
    mac: str = ""
    mtu: int = 1500
    up: bool = False
    kind: str = ""
    master: int = 0
    #: Whether a bridge learns source addresses on this port; None: not a port.
    learning: bool | None = None
    loopback: bool = False


class Address(Model, frozen=True, kw_only=True):
    """An address with its prefix length, e.g. ``10.0.0.1/24``, on the link named."""

    link: str
    address: str
    scope: int = 0
    broadcast: str = ""


class Route(Model, frozen=True, kw_only=True):
    """A unicast route of the main table. ``gateway`` empty: on-link."""

    link: str
    destination: str
    gateway: str = ""
    metric: int = 0
    scope: int = 0
    protocol: int = 0
    source: str = ""
    onlink: bool = False


class Observed(Model, frozen=True, kw_only=True):
    """One look at a namespace."""

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    #: Our own tables and others: (family, name).
    tables: tuple[tuple[str, str], ...] = ()
    #: Chains of others that drop forwarded packets by default: ``ip filter FORWARD``.
    dropping: tuple[str, ...] = ()

    def link(self, name: str) -> Link | None:
        """The link of that name."""
        return next((link for link in self.links if link.name == name), None)

    def by_index(self, index: int) -> Link | None:
        """The link with that index."""
        return next((link for link in self.links if link.index == index), None)

    def addresses_of(self, link: str) -> tuple[Address, ...]:
        """Its addresses, both families."""
        return tuple(address for address in self.addresses if address.link == link)

    def routes_of(self, link: str) -> tuple[Route, ...]:
        """Routes of the main table that leave through it."""
        return tuple(route for route in self.routes if route.link == link)


def is_v6(text: str) -> bool:
    """Whether an address or prefix is an IPv6 one."""
    return ":" in text


def default_route(observed: Observed, *, v6: bool = False) -> Route | None:
    """The default route with the lowest metric of that family."""
    wanted = "::/0" if v6 else "0.0.0.0/0"
    routes = [route for route in observed.routes if route.destination == wanted]
    return min(routes, key=lambda route: route.metric, default=None)
