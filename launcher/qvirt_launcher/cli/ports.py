"""A guest's ports, from here: of a VM of this machine by its address, of one of a cluster through the API server."""

from __future__ import annotations

import asyncio
from typing import Literal

from qvirt_crds.report import GuestInterface
from qvirt_launcher.cli.pipes import Pipe, StreamPipe
from qvirt_launcher.cli.reach import control, query
from qvirt_launcher.cli.where import Remote
from qvirt_launcher.errors import HostError
from qvirt_launcher.rundir import Vm

Protocol = Literal["tcp", "udp"]
_DIAL_SECONDS = 10.0


async def open_port(vm: Vm | Remote, port: int, protocol: Protocol = "tcp") -> Pipe:
    """A connection to the guest.

    :raise QvirtError: there is none to be had; the message says why.
    """
    if isinstance(vm, Remote):
        return await vm.stream(f"portforward/{port}/{protocol}")
    host, number = await address(vm, port, protocol)
    try:
        async with asyncio.timeout(_DIAL_SECONDS):
            return StreamPipe(*await asyncio.open_connection(host, number))
    except (OSError, TimeoutError) as error:
        cause = getattr(error, "strerror", None) or "no answer"
        raise HostError(f"{vm.record.name}: port {port} at {host}:{number}: {cause}") from error


async def address(vm: Vm, port: int, protocol: Protocol = "tcp") -> tuple[str, int]:
    """Where a guest's port is reached on this machine.

    :raise HostError: nowhere.
    """
    monitor = await control(vm)
    try:
        report = await query(monitor)
    finally:
        await monitor.aclose()
    for interface in report.interfaces:
        found = _of_interface(interface, port, protocol)
        if found is not None:
            return found
    raise HostError(
        f"{vm.record.name}: port {port} can't be reached from here; with user-mode networking or passt,"
        " start the VM with --publish"
    )


def _of_interface(
    interface: GuestInterface, port: int, protocol: Protocol
) -> tuple[str, int] | None:
    for published in interface.publish:
        if (published.guest_port, published.protocol) == (port, protocol):
            return published.host_address, published.host_port
    if interface.address and interface.leased:
        return interface.address.partition("/")[0], port
    return None
