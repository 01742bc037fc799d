"""Network cards: ``-netdev`` (how frames leave QEMU) and the card that the guest sees."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final, assert_never

from qvirt_crds.devices import Interface, InterfaceModel
from qvirt_crds.domain import Domain
from qvirt_crds.model import Model
from qvirt_crds.report import Attachment, PortForward
from qvirt_launcher.arguments import Command, Properties, refused
from qvirt_launcher.board import Family, virtio_driver
from qvirt_launcher.cpu import vcpus
from qvirt_launcher.errors import HostError
from qvirt_launcher.facts import HostFacts
from qvirt_launcher.fds import tap_numbers, vhost_numbers
from qvirt_launcher.slots import Slots

_MAX_QUEUES: Final = 256
#: igb came with QEMU 8.0.
_IGB_SINCE: Final = (8, 0, 0)
#: PCI Express cards; the others are plain PCI.
_EXPRESS: Final[frozenset[InterfaceModel]] = frozenset({"e1000e", "igb"})


class Nics(Model, frozen=True, kw_only=True):
    """All network cards, in the order of the spec."""

    netdevs: tuple[Properties, ...] = ()
    devices: tuple[Properties, ...] = ()
    #: Links that are down from the start.
    commands: tuple[Command, ...] = ()


def queue_count(domain: Domain, interface: Interface) -> int:
    """How many queues (tap descriptors) an interface has: one a vCPU for virtio with ``networkInterfaceMultiqueue``."""
    multiqueue = domain.devices.network_interface_multiqueue
    if multiqueue and _model(interface) == "virtio":
        return min(vcpus(domain), _MAX_QUEUES)
    return 1


def takes_vhost(interface: Interface) -> bool:
    """Whether the kernel can carry this card's frames: its queues are virtio's."""
    return _model(interface) == "virtio"


def present_interfaces(domain: Domain) -> tuple[Interface, ...]:
    """Those that are plugged in: an interface whose state is absent was taken out."""
    return tuple(i for i in domain.devices.interfaces if i.state != "absent")


def plan_nics(
    domain: Domain, host: HostFacts, board: Family, slots: Slots, boot: Mapping[str, int]
) -> Nics:
    """:raise HostError: an interface was not attached, or this QEMU lacks the model.
    :raise SpecError: the machine type lacks the model, or there is no place for it.
    """
    attachments = {attachment.interface: attachment for attachment in host.attachments}
    numbers = tap_numbers(host.attachments)
    # Under emulation nobody has tried it, and the guest's processor is slower than anything it could save.
    vhosts = vhost_numbers(host.attachments) if host.accel == "kvm" else {}
    netdevs, devices, commands = [], [], []
    for index, interface in enumerate(domain.devices.interfaces):
        if interface.state == "absent":
            continue
        attachment = attachments.get(interface.name)
        if attachment is None:
            raise HostError(f"interface {interface.name} is attached to nothing on this host")
        vhost = vhosts.get(interface.name, ()) if takes_vhost(interface) else ()
        netdevs.append(_netdev(attachment, numbers[interface.name], vhost))
        path = f"spec.domain.devices.interfaces[{index}]"
        transitional = bool(domain.devices.use_virtio_transitional)
        card = _Card(interface, path, board, transitional, host.qemu_version)
        devices.append(card.device(attachment, slots, boot.get(interface.name)))
        if interface.state == "down":
            commands.append(
                Command(execute="set_link", arguments={"name": _id(interface), "up": False})
            )
    return Nics(netdevs=tuple(netdevs), devices=tuple(devices), commands=tuple(commands))


def _model(interface: Interface) -> InterfaceModel:
    return interface.model or "virtio"


def _id(interface: Interface) -> str:
    return f"nic-{interface.name}"


def _netdev(attachment: Attachment, numbers: tuple[int, ...], vhost: tuple[int, ...]) -> Properties:
    name: Properties = {"id": f"net-{attachment.interface}"}
    match attachment.backend:
        case "tap":
            # Descriptors only: no /dev/net/tun, no script, no /dev/vhost-net (without which QEMU 7.2 aborts on a mere vhost=on).
            many = "s" if len(numbers) > 1 else ""
            fast: Properties = {"vhost": True, f"vhostfd{many}": _joined(vhost)} if vhost else {}
            return {"type": "tap", **name, f"fd{many}": _joined(numbers), **fast}
        case "user":
            forwards = [{"str": _forward(rule)} for rule in attachment.publish]
            hostname = attachment.lease.hostname if attachment.lease else ""
            return {
                "type": "user",
                **name,
                **({"hostname": hostname} if hostname else {}),
                **({"hostfwd": forwards} if forwards else {}),
            }
        case "passt":
            address: Properties = {"type": "unix", "path": attachment.socket}
            return {"type": "stream", **name, "server": False, "addr": address}
        case unreachable:
            assert_never(unreachable)


def _joined(numbers: tuple[int, ...]) -> str:
    return ":".join(map(str, numbers))


def _forward(rule: PortForward) -> str:
    try:
        address = IPv4Address(rule.host_address)
    except ValueError:
        raise HostError(
            f"can't publish on {rule.host_address!r}: user-mode networking knows IPv4 addresses only"
        ) from None
    return f"{rule.protocol}:{address}:{rule.host_port}-:{rule.guest_port}"


class _Card:
    """One interface as the guest sees it."""

    def __init__(
        self,
        interface: Interface,
        path: str,
        board: Family,
        transitional: bool,
        qemu: tuple[int, int, int],
    ) -> None:
        self._interface = interface
        self._path = path
        self._board = board
        self._transitional = transitional
        self._model = _model(interface)
        if board == "microvm" and self._model != "virtio":
            raise refused(f"{path}.model", f"machine type microvm has no {self._model}: use virtio")
        if self._model == "igb" and qemu < _IGB_SINCE:
            raise HostError(
                f"{path}.model: igb needs QEMU 8.0 or newer, this is {'.'.join(map(str, qemu))}: "
                "use virtio or e1000e"
            )

    def device(self, attachment: Attachment, slots: Slots, boot_index: int | None) -> Properties:
        """``-device``; without a boot order it has no option ROM, so that nobody waits for the network."""
        queues = max(1, len(attachment.tap_fds))
        if queues > 1 and self._model != "virtio":
            raise HostError(
                f"{self._path}: {self._model} has one queue, but {queues} were attached"
            )
        device: Properties = {
            "driver": self._driver(),
            "id": _id(self._interface),
            "netdev": f"net-{self._interface.name}",
            "mac": attachment.mac,
            **(self._virtio(attachment.mtu, queues) if self._model == "virtio" else {}),
        }
        if boot_index is not None:
            device["bootindex"] = boot_index
        if self._board == "microvm":
            return device | self._place(slots)
        if boot_index is None:
            device["romfile"] = ""
        if self._interface.acpi_index:
            device["acpi-index"] = self._interface.acpi_index
        return device | self._place(slots)

    def _driver(self) -> str:
        if self._model == "virtio":
            return virtio_driver("net", self._board, self._transitional)
        return self._model

    def _virtio(self, mtu: int, queues: int) -> Properties:
        found: Properties = {"host_mtu": mtu}
        if queues > 1:
            found["mq"] = True
            if self._board != "microvm":
                # One for each direction of each queue, one for control, one for configuration changes.
                found["vectors"] = 2 * queues + 2
        return found

    def _place(self, slots: Slots) -> Properties:
        wish = self._interface.pci_address
        at = f"{self._path}.pciAddress" if wish else self._path
        if self._model == "virtio":
            return slots.virtio(at, wish)
        if self._model in _EXPRESS:
            return slots.express(at, wish)
        return slots.conventional(at, wish)
