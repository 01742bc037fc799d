"""What every way of connecting a guest decides: the set-up of the namespace, and the guest's lease."""

from __future__ import annotations

from qvirt_crds.model import Model
from qvirt_crds.report import Lease
from qvirt_netsetup.desired import Desired
from qvirt_netsetup.observed import Observed
from qvirt_netsetup.request import InterfaceRequest, NetworkRequest
from qvirt_netsetup.resolv import Resolver
from qvirt_netsetup.tenancy import Nic, State


class Facts(Model, frozen=True, kw_only=True):
    """What is known when deciding."""

    observed: Observed
    state: State
    resolver: Resolver
    #: Of this machine; only to tell machines apart.
    machine_id: str = ""
    #: Whether this namespace has IPv6 at all.
    has_ipv6: bool = True
    #: Settings that some decision depends on: those of `qvirt_netsetup.nat.settings`.
    sysctls: dict[str, str] = {}


class Binding(Model, frozen=True, kw_only=True):
    """The decision for one interface."""

    nic: Nic
    mtu: int
    desired: Desired
    #: None: no address of ours, so nobody answers DHCP.
    lease: Lease | None = None
    warnings: tuple[str, ...] = ()


def base_lease(
    request: NetworkRequest, interface: InterfaceRequest, resolver: Resolver, *, mac: str, mtu: int
) -> Lease:
    """Everything of a lease but addresses and routes."""
    dhcp = interface.dhcp
    return Lease(
        mac=mac,
        mtu=mtu,
        hostname=request.hostname or request.name,
        dns=resolver.nameservers,
        search=resolver.search,
        ntp=dhcp.ntp_servers,
        boot_file=dhcp.boot_file_name,
        tftp_server=dhcp.tftp_server_name,
        private_options={str(option.option): option.value for option in dhcp.private_options},
    )
