"""The network of a guest in its pod: what netsetup is asked for (pure), and asking it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Final

from qvirt_crds.devices import DhcpOptions, Interface
from qvirt_crds.domain import Domain
from qvirt_crds.names import RUNTIME_UID
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_crds.volumes import Network
from qvirt_handler.finder import Process
from qvirt_netsetup import api
from qvirt_netsetup.request import InterfaceRequest, Mode, NetworkRequest
from qvirt_netsetup.service import Outcome

#: The pod network's interface (Kubernetes' convention, which every CNI plugin keeps).
POD_LINK: Final = "eth0"
_MOST_QUEUES: Final = 256


def interface_requests(vmi: VirtualMachineInstance) -> tuple[InterfaceRequest, ...]:
    """One for each interface that is plugged in. Bridge binding takes the pod's interface over, masquerade leaves it."""
    networks = {network.name: network for network in vmi.spec.networks}
    domain = vmi.spec.domain
    return tuple(
        _request(domain, interface, networks[interface.name])
        for interface in domain.devices.interfaces
        if interface.state != "absent" and interface.name in networks
    )


def _request(domain: Domain, interface: Interface, network: Network) -> InterfaceRequest:
    mode: Mode = "masquerade" if interface.masquerade is not None else "takeover"
    return InterfaceRequest(
        name=interface.name,
        mode=mode,
        mac=interface.mac_address,
        queues=_queues(domain, interface),
        vhost=interface.model in {"", "virtio"},
        link=pod_link(network),
        ports=interface.ports,
        network=network.pod.vm_network_cidr if network.pod else "",
        network6=network.pod.vm_ipv6_network_cidr if network.pod else "",
        dhcp=interface.dhcp_options or DhcpOptions(),
    )


def pod_link(network: Network) -> str:
    """The pod's interface of a network: eth0, or as Multus is told to name secondary ones (KubeVirt's hashed names)."""
    if network.multus is None or network.multus.default:
        return POD_LINK
    return f"pod{hashlib.sha256(network.name.encode()).hexdigest()[:11]}"


def _queues(domain: Domain, interface: Interface) -> int:
    if not domain.devices.network_interface_multiqueue or interface.model not in {"", "virtio"}:
        return 1
    cpu = domain.cpu
    if cpu is None:
        return 1
    return min((cpu.sockets or 1) * (cpu.cores or 1) * (cpu.threads or 1), _MOST_QUEUES)


async def set_up(vmi: VirtualMachineInstance, process: Process, state_dir: str) -> Outcome | None:
    """Make the guest's network in the launcher's namespace; None when it has no interfaces.

    :returns: attachments and descriptors, which the caller hands over and closes.
    :raises NetworkError: nothing is left behind.
    :raises OSError: the launcher is gone.
    """
    interfaces = interface_requests(vmi)
    if not interfaces:
        return None
    opened: list[int] = []
    try:
        opened.append(process.open_netns())
        resolv_conf = ""
        with contextlib.suppress(FileNotFoundError):
            opened.append(process.open_inside("/etc/resolv.conf", os.O_RDONLY))
            resolv_conf = f"/proc/self/fd/{opened[1]}"
        request = NetworkRequest(
            verb="up",
            state_dir=state_dir,
            namespace=vmi.metadata.namespace,
            name=vmi.metadata.name,
            uid=vmi.metadata.uid,
            owner_pid=process.pid,
            owner_uid=RUNTIME_UID,
            netns=f"/proc/self/fd/{opened[0]}",
            resolv_conf=resolv_conf,
            hostname=vmi.spec.hostname or vmi.metadata.name.partition(".")[0][:63],
            subdomain=vmi.spec.subdomain,
            interfaces=interfaces,
        )
        return await api.setup(request)
    finally:
        for handle in opened:
            os.close(handle)


async def pod_addresses(process: Process) -> tuple[str, ...]:
    """The pod's addresses, IPv4 first; none when the namespace has no such interface.

    :raises OSError: the launcher is gone.
    """
    handle = process.open_netns()
    try:
        return await api.addresses(f"/proc/self/fd/{handle}", POD_LINK)
    finally:
        os.close(handle)
