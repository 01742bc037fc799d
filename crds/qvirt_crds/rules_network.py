"""Semantic refusals of interfaces and networks. Wording is KubeVirt's where its webhook has one."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from qvirt_crds.devices import DhcpOptions, Interface, Port
from qvirt_crds.errors import Cause
from qvirt_crds.rules_values import at_most, is_pci_address, not_implemented, printable
from qvirt_crds.vm import VirtualMachineInstanceSpec
from qvirt_crds.volumes import Network, PodNetwork

#: MAC of the bridge that the masquerade binding makes.
BRIDGE_MAC: Final = "02:00:00:00:00:00"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}(?:(?::[0-9a-fA-F]{2}){5}|(?:-[0-9a-fA-F]{2}){5})")
_PORT_NAME: Final = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(?:-[a-z0-9]+)*")
_BINDINGS: Final = ("bridge", "masquerade", "passt_binding")
#: PCI firmware's limit for the index that gives a card its name in the guest (QEMU refuses more).
_MAX_ACPI_INDEX: Final = 16 * 1024 - 1
_PRIVATE_OPTIONS: Final = range(224, 255)


def check_networks(
    spec: VirtualMachineInstanceSpec, path: str, *, permit_bridge: bool = True
) -> Iterator[Cause]:
    """All that is wrong with an instance's interfaces and networks.

    :param permit_bridge: whether a guest may be bridged to the pod network.
    """
    interfaces, networks = spec.domain.devices.interfaces, spec.networks
    cards, nets = f"{path}.domain.devices.interfaces", f"{path}.networks"
    yield from at_most(len(interfaces), cards)
    yield from at_most(len(networks), nets)
    yield from _pairs(interfaces, networks, cards, nets)
    by_name = {n.name: n for n in networks}
    for index, interface in enumerate(interfaces):
        yield from _interface(interface, by_name.get(interface.name), f"{cards}[{index}]")
        network = by_name.get(interface.name)
        if not permit_bridge and interface.bridge is not None and network and network.pod:
            message = "Bridge on pod network configuration is not enabled under kubevirt-config"
            yield Cause(path=f"{cards}[{index}].name", message=message)
    yield from _acpi_indices(interfaces, cards)
    for index, network in enumerate(networks):
        yield from _network(network, f"{nets}[{index}]")
    yield from _primary(networks, nets)


def _pairs(
    interfaces: tuple[Interface, ...], networks: tuple[Network, ...], cards: str, nets: str
) -> Iterator[Cause]:
    plugged = [i.name for i in interfaces]
    there = [n.name for n in networks]
    for index, name in enumerate(there):
        if name in there[:index]:
            message = (
                f'Network with name "{name}" already exists, every network must have a unique name'
            )
            yield Cause(path=f"{nets}[{index}].name", message=message)
        if name not in plugged:
            message = f"{nets}[{index}].name '{name}' not found."
            yield Cause(path=f"{nets}[{index}].name", message=message)
    for index, name in enumerate(plugged):
        if name in plugged[:index]:
            message = "Only one interface can be connected to one specific network"
            yield Cause(path=f"{cards}[{index}].name", message=message)
        if name not in there:
            message = f"{cards}[{index}].name '{name}' not found."
            yield Cause(path=f"{cards}[{index}].name", message=message)


def _interface(interface: Interface, network: Network | None, path: str) -> Iterator[Cause]:
    name = interface.name
    if not _NAME.fullmatch(name):
        message = "Network interface name can only contain alphabetical characters, numbers, dashes (-) or underscores (_)"
        yield Cause(path=f"{path}.name", message=message)
    if sum(getattr(interface, binding) is not None for binding in _BINDINGS) != 1:
        message = f"logical {name} interface must have exactly one binding method or binding plugin"
        yield Cause(path=path, message=message)
    if network and not network.pod:
        if interface.masquerade:
            message = "Masquerade interface only implemented with pod network"
            yield Cause(path=f"{path}.masquerade", message=message)
        if interface.passt_binding:
            message = "passt interface only implemented with pod network"
            yield Cause(path=f"{path}.passtBinding", message=message)
    yield from _mac(interface, path)
    if interface.pci_address and not is_pci_address(interface.pci_address):
        message = f"interface {name} has malformed PCI address ({interface.pci_address})."
        yield Cause(path=f"{path}.pciAddress", message=message)
    if interface.state == "absent":
        yield from _absent(interface, network, f"{path}.state")
    if interface.tag:
        yield not_implemented(f"{path}.tag")
    yield from _ports(interface.ports, f"{path}.ports")
    if interface.dhcp_options:
        yield from _dhcp(interface.dhcp_options, f"{path}.dhcpOptions")


def _absent(interface: Interface, network: Network | None, path: str) -> Iterator[Cause]:
    quoted = f'"{interface.name}" interface\'s state "absent" is'
    if interface.bridge is None:
        yield Cause(path=path, message=f"{quoted} supported only for bridge binding")
    if network and network.pod:
        yield Cause(path=path, message=f"{quoted} not supported on default networks")


def _mac(interface: Interface, path: str) -> Iterator[Cause]:
    mac = interface.mac_address
    if not mac:
        return
    where = f"{path}.macAddress"
    if not _MAC.fullmatch(mac):
        message = f"interface {interface.name} has malformed MAC address ({mac})."
        yield Cause(path=where, message=message)
        return
    octets = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    if octets[0] & 1 or not any(octets):
        kind = "a multicast" if octets[0] & 1 else "the null"
        message = (
            f"interface {interface.name} has {kind} MAC address ({mac}), which no card can have."
        )
        yield Cause(path=where, message=message)
    if interface.masquerade and octets == bytes.fromhex(BRIDGE_MAC.replace(":", "")):
        message = "The requested MAC address is reserved for the in-pod bridge. Please choose another one."
        yield Cause(path=where, message=message)


def _ports(ports: tuple[Port, ...], path: str) -> Iterator[Cause]:
    names: set[str] = set()
    for index, port in enumerate(ports):
        inner = f"{path}[{index}]"
        if port.port == 0:
            yield Cause(path=f"{inner}.port", message="Port field is mandatory.")
        elif not 0 < port.port < 65536:
            yield Cause(path=f"{inner}.port", message="Port field must be in range 0 < x < 65536.")
        if not port.name:
            continue
        if port.name in names:
            message = f"Duplicate name of the port: {port.name}"
            yield Cause(path=f"{inner}.name", message=message)
        names.add(port.name)
        if not _PORT_NAME.fullmatch(port.name):
            yield Cause(path=f"{inner}.name", message=f"Invalid name of the port: {port.name}")


def _dhcp(options: DhcpOptions, path: str) -> Iterator[Cause]:
    numbers = [o.option for o in options.private_options]
    if len(set(numbers)) < len(numbers):
        message = "Found Duplicates: you have provided duplicate DHCPPrivateOptions"
        yield Cause(path=f"{path}.privateOptions", message=message)
    for index, option in enumerate(options.private_options):
        inner = f"{path}.privateOptions[{index}]"
        if option.option not in _PRIVATE_OPTIONS:
            message = "provided DHCPPrivateOptions are out of range, must be in range 224 to 254"
            yield Cause(path=f"{inner}.option", message=message)
        yield from _option_text(option.value, f"{inner}.value")
    for index, server in enumerate(options.ntp_servers):
        if _address(server) is None:
            message = f"NTP servers must be a list of valid IPv4 addresses. Found {server!r}"
            yield Cause(path=f"{path}.ntpServers[{index}]", message=message)
    if len(options.ntp_servers) > 63:
        yield Cause(path=f"{path}.ntpServers", message="a DHCP option has room for 63 addresses")
    yield from _option_text(options.boot_file_name, f"{path}.bootFileName")
    yield from _option_text(options.tftp_server_name, f"{path}.tftpServerName")


def _option_text(text: str, path: str) -> Iterator[Cause]:
    yield from printable(text, path)
    if len(text.encode()) > 255:
        yield Cause(path=path, message="a DHCP option has room for 255 bytes")


def _address(text: str) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None


def _acpi_indices(interfaces: tuple[Interface, ...], path: str) -> Iterator[Cause]:
    seen: set[int] = set()
    for index, interface in enumerate(interfaces):
        where, number = f"{path}[{index}].acpiIndex", interface.acpi_index
        if not 0 <= number <= _MAX_ACPI_INDEX:
            yield Cause(path=where, message=f"expected 1 to {_MAX_ACPI_INDEX}, found {number}")
        elif number in seen:
            yield Cause(path=where, message=f"{number} is already the index of another interface")
        if number:
            seen.add(number)


def _network(network: Network, path: str) -> Iterator[Cause]:
    kinds = sum(kind is not None for kind in (network.pod, network.multus))
    if kinds == 0:
        yield Cause(path=path, message="should have a network type")
    if kinds > 1:
        yield Cause(path=path, message="should have only one network type")
    if network.multus and not network.multus.network_name:
        message = "CNI delegating plugin must have a networkName"
        yield Cause(path=f"{path}.multus.networkName", message=message)
    if network.pod:
        yield from _cidrs(network.pod, f"{path}.pod")


def _cidrs(pod: PodNetwork, path: str) -> Iterator[Cause]:
    """The gateway takes the first address, the guest the second: two hosts are needed, and for IPv4 the broadcast."""
    for name, text, version, longest in (
        ("vmNetworkCIDR", pod.vm_network_cidr, 4, 30),
        ("vmIPv6NetworkCIDR", pod.vm_ipv6_network_cidr, 6, 126),
    ):
        if not text:
            continue
        try:
            cidr = ipaddress.ip_network(text, strict=False)
        except ValueError:
            cidr = None
        if cidr is None or "/" not in text or cidr.version != version or cidr.prefixlen > longest:
            message = f"expected an IPv{version} network of at most /{longest}, found {text!r}"
            yield Cause(path=f"{path}.{name}", message=message)


def _primary(networks: tuple[Network, ...], path: str) -> Iterator[Cause]:
    pods = [i for i, n in enumerate(networks) if n.pod]
    defaults = [i for i, n in enumerate(networks) if n.multus and n.multus.default]
    for index in pods[1:]:
        message = f"more than one interface is connected to a pod network in {path}"
        yield Cause(path=f"{path}[{index}]", message=message)
    for index in defaults[1:]:
        message = "Multus CNI should only have one default network"
        yield Cause(path=f"{path}[{index}].multus.default", message=message)
    if pods and defaults:
        message = "Pod network cannot be defined when Multus default network is defined"
        yield Cause(path=f"{path}[{pods[0]}]", message=message)
