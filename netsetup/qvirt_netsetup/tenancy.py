"""What was done for whom: the contents of the state file. Pure."""

from __future__ import annotations

import msgspec

from qvirt_crds.model import Model
from qvirt_netsetup.observed import Address, Link, Route
from qvirt_netsetup.request import Mode, NetworkRequest


class Owner(Model, frozen=True, kw_only=True):
    """A process: its number, and when it began (ticks since boot), for numbers are used again."""

    pid: int
    start: int


class Original(Model, frozen=True, kw_only=True):
    """An interface as it was before a guest took it over."""

    link: Link
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    #: Settings of this link (IPv6 off and such), key by the link's own name.
    disable_ipv6: str = "0"


class Nic(Model, frozen=True, kw_only=True):
    """One interface of a guest and what belongs to it alone."""

    interface: str
    mode: Mode
    tap: str
    mac: str
    #: takeover, masquerade: the namespace's interface and the bridge made for it.
    link: str = ""
    bridge: str = ""
    #: nat: its addresses, with prefix length.
    address: str = ""
    address6: str = ""
    original: Original | None = None


class Tenant(Model, frozen=True, kw_only=True):
    """A VM."""

    namespace: str
    name: str
    uid: str
    owner: Owner
    nics: tuple[Nic, ...] = ()

    @property
    def label(self) -> str:
        """``namespace/name``"""
        return f"{self.namespace}/{self.name}"

    def is_of(self, request: NetworkRequest) -> bool:
        """Whether the request is about this VM. By name: there is one VM of a name at a time."""
        return (self.namespace, self.name) == (request.namespace, request.name)


class State(Model, frozen=True, kw_only=True):
    """Of one network namespace."""

    subnet: str = ""
    subnet6: str = ""
    #: Settings as they were before the first VM, to be written back in this order after the last.
    saved: dict[str, str] = {}
    tenants: tuple[Tenant, ...] = ()

    def without(self, tenant: Tenant) -> State:
        """The same, less one VM."""
        rest = tuple(other for other in self.tenants if other != tenant)
        return msgspec.structs.replace(self, tenants=rest) if rest else State()
