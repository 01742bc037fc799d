"""How the guest of a VM without a cluster reaches the network, and the making and removing of what that takes.

`choose` decides; `attached` acts: through a short-lived netsetup child as root, passt or QEMU's user mode without.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from qvirt_crds.devices import DhcpOptions, Interface
from qvirt_crds.errors import Cause, SpecError
from qvirt_crds.report import Attachment, PortForward
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher import passt
from qvirt_launcher.account import Account
from qvirt_launcher.errors import HostError, UsageError
from qvirt_launcher.nics import present_interfaces, queue_count, takes_vhost
from qvirt_netsetup import client
from qvirt_netsetup.errors import SetupFailed
from qvirt_netsetup.request import InterfaceRequest, Mode, NetworkReply, NetworkRequest

Wish = Literal["auto", "nat", "takeover", "user", "passt", "none"]
Choice = Literal["nat", "takeover", "user", "passt", "none"]

_PRIVILEGED: Final = frozenset({"nat", "takeover"})
_MTU: Final = 1500

Notify = Callable[[str], None]


class Uplink(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided."""

    choice: Choice
    #: Why, if it wasn't the user who chose; empty otherwise.
    because: str = ""
    #: Network of the spec -> interface of this machine (takeover). The key "" is for the pod network.
    links: Mapping[str, str] = {}
    publish: tuple[PortForward, ...] = ()


class Attached(msgspec.Struct, frozen=True):
    """Interfaces ready to be plugged in, and the descriptors that their numbers point into (ours to close)."""

    attachments: tuple[Attachment, ...] = ()
    fds: tuple[int, ...] = ()


def choose(
    wish: Wish, publish: tuple[PortForward, ...], links: Mapping[str, str], *, root: bool
) -> Uplink:
    """Decide how to connect.

    :param publish: of ``--publish``; needs user or passt.
    :raise UsageError: options that contradict each other.
    :raise HostError: root or passt is needed for what was asked.
    """
    have_passt = shutil.which("passt") is not None
    choice, because = _automatic(root, have_passt, bool(publish)) if wish == "auto" else (wish, "")
    if choice in _PRIVILEGED and not root:
        raise HostError(
            f"--network {choice}: needs root; start as root, or use --network user (or passt)"
        )
    if choice == "passt" and not have_passt:
        raise HostError("--network passt: passt is not installed; apt install passt")
    if publish and choice not in {"user", "passt"}:
        raise UsageError(
            f"--publish: works with --network user or passt; with {choice} the guest has an address of its own"
        )
    if links and choice != "takeover":
        raise UsageError("--interface: is for --network takeover; add that or leave it out")
    return Uplink(choice=choice, because=because, links=links, publish=publish)


def _automatic(root: bool, have_passt: bool, publishing: bool) -> tuple[Choice, str]:
    if root and not publishing:
        return "nat", ""
    if root:
        return "user", "for --publish"
    if have_passt:
        return "passt", "not root"
    return "user", "not root, and passt is not installed"


def without_network(vmi: VirtualMachineInstance) -> VirtualMachineInstance:
    """The same guest without any network card (``--network none``)."""
    devices = replace(vmi.spec.domain.devices, interfaces=(), autoattach_pod_interface=False)
    domain = replace(vmi.spec.domain, devices=devices)
    return replace(vmi, spec=replace(vmi.spec, domain=domain, networks=()))


@contextlib.asynccontextmanager
async def attached(
    uplink: Uplink,
    vmi: VirtualMachineInstance,
    state_dir: Path,
    account: Account,
    notify: Notify,
) -> AsyncIterator[Attached]:
    """The guest's interfaces, connected; everything is removed at the end.

    :raise NetworkError: the network can't be made; nothing is left behind.
    :raise HostError: passt doesn't start, or a published port is taken.
    :raise SpecError: the spec asks for what no machine without a cluster has.
    """
    for port in uplink.publish:
        _check_free(port)
    if not present_interfaces(vmi.spec.domain):
        yield Attached()
    elif uplink.choice in _PRIVILEGED:
        async with _by_netsetup(uplink, vmi, state_dir, account, notify) as made:
            yield made
    elif uplink.choice == "passt":
        async with _by_passt_or_user_mode(uplink, vmi, account, notify) as made:
            yield made
    else:
        yield Attached(user_mode(vmi, uplink.publish))


def _check_free(port: PortForward) -> None:
    """QEMU and passt would say it in their own words, and too late."""
    family = socket.AF_INET6 if ":" in port.host_address else socket.AF_INET
    kind = socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            # Connections of an earlier guest that are winding up are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.host_address, port.host_port))
        except OSError as error:
            raise HostError(
                f"--publish {port.host_address}:{port.host_port}/{port.protocol}: {error.strerror};"
                " choose another port"
            ) from error


@contextlib.asynccontextmanager
async def _by_netsetup(
    uplink: Uplink,
    vmi: VirtualMachineInstance,
    state_dir: Path,
    account: Account,
    notify: Notify,
) -> AsyncIterator[Attached]:
    request = NetworkRequest(
        verb="up",
        state_dir=str(state_dir),
        namespace=vmi.metadata.namespace or "default",
        name=vmi.metadata.name,
        uid=vmi.metadata.uid,
        owner_pid=os.getpid(),
        owner_uid=account.uid,
        hostname=vmi.spec.hostname or vmi.metadata.name,
        subdomain=vmi.spec.subdomain,
        interfaces=requests(uplink, vmi, notify),
    )
    fds: tuple[int, ...] = ()
    try:
        reply, fds = await client.call(request)
        _refuse_failure(reply)
        for warning in reply.warnings:
            notify(warning)
        for other in reply.cleaned:
            notify(f"removed what {other} had left of its network")
        yield Attached(reply.attachments, fds)
    finally:
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        # Also after a set-up that was cut short: taking down what isn't there does no harm.
        done, _ = await asyncio.shield(client.call(replace(request, verb="down")))
        _refuse_failure(done)


def _refuse_failure(reply: NetworkReply) -> None:
    if reply.error is not None:
        raise SetupFailed(reply.error.message)


def requests(
    uplink: Uplink, vmi: VirtualMachineInstance, notify: Notify
) -> tuple[InterfaceRequest, ...]:
    """What netsetup is asked for, one an interface.

    :raise SpecError: a network that this machine has nothing for.
    """
    return tuple(
        InterfaceRequest(
            name=interface.name,
            mode=_mode(uplink, interface),
            mac=interface.mac_address,
            queues=queue_count(vmi.spec.domain, interface),
            vhost=takes_vhost(interface),
            link=_link(uplink, vmi, interface, notify),
            ports=interface.ports,
            network=network.pod.vm_network_cidr if network.pod else "",
            network6=network.pod.vm_ipv6_network_cidr if network.pod else "",
            dhcp=interface.dhcp_options or DhcpOptions(),
        )
        for interface in present_interfaces(vmi.spec.domain)
        for network in vmi.spec.networks
        if network.name == interface.name
    )


def _mode(uplink: Uplink, interface: Interface) -> Mode:
    if uplink.choice == "takeover":
        return "masquerade" if interface.masquerade is not None else "takeover"
    return "nat"


def _link(uplink: Uplink, vmi: VirtualMachineInstance, interface: Interface, notify: Notify) -> str:
    for index, network in enumerate(vmi.spec.networks):
        if network.name == interface.name and network.multus is not None:
            known = uplink.links.get(network.name, "")
            if known:
                return known
            if uplink.choice == "takeover":
                raise SpecError(
                    (
                        Cause(
                            path=f"spec.networks[{index}].multus",
                            message=f"there is no Multus without a cluster; say which interface it is with --interface {network.name}=NAME",
                        ),
                    )
                )
            notify(
                f"network {network.name}: there is no Multus without a cluster; it is on the NAT bridge, too"
            )
            return ""
    return uplink.links.get(interface.name) or uplink.links.get("", "")


def user_mode(
    vmi: VirtualMachineInstance, publish: tuple[PortForward, ...]
) -> tuple[Attachment, ...]:
    """The guest's interfaces on networks inside of QEMU; the first one has the published ports."""
    return tuple(
        Attachment(
            interface=interface.name,
            backend="user",
            mac=interface.mac_address or _mac(vmi, interface),
            mtu=_MTU,
            publish=publish if index == 0 else (),
        )
        for index, interface in enumerate(present_interfaces(vmi.spec.domain))
    )


def _mac(vmi: VirtualMachineInstance, interface: Interface) -> str:
    """Locally administered, and the same at every start: guests keep their interface names and leases."""
    name = f"{vmi.metadata.namespace or 'default'}/{vmi.metadata.name}/{interface.name}"
    digest = hashlib.sha256(name.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


@contextlib.asynccontextmanager
async def _by_passt_or_user_mode(
    uplink: Uplink, vmi: VirtualMachineInstance, account: Account, notify: Notify
) -> AsyncIterator[Attached]:
    """passt; where it was our choice and can't start (no user namespaces, in many containers), user mode instead."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            made = await stack.enter_async_context(_by_passt(uplink, vmi, account))
        except HostError as error:
            if not uplink.because:
                raise
            notify(f"network: user instead ({error})")
            made = Attached(user_mode(vmi, uplink.publish))
        yield made


@contextlib.asynccontextmanager
async def _by_passt(
    uplink: Uplink, vmi: VirtualMachineInstance, account: Account
) -> AsyncIterator[Attached]:
    async with contextlib.AsyncExitStack() as stack:
        name = f"{vmi.metadata.namespace or 'default'}/{vmi.metadata.name}"
        folder = stack.enter_context(passt.folder(name, account))
        attachments: list[Attachment] = []
        for attachment in user_mode(vmi, uplink.publish):
            path = folder / f"{len(attachments)}.sock"
            await stack.enter_async_context(passt.serving(path, attachment, account))
            attachments.append(replace(attachment, backend="passt", socket=str(path)))
        yield Attached(tuple(attachments))
