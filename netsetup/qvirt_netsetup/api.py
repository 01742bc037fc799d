"""Set up and take down a VM's network from within an asyncio program (virt-handler).

The work happens in a thread of its own inside the namespace asked for; the caller's thread stays where it is.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Final

import msgspec

from qvirt_netsetup import netns, service
from qvirt_netsetup.apply import Kernel
from qvirt_netsetup.errors import StateUnreadable
from qvirt_netsetup.request import NetworkReply, NetworkRequest
from qvirt_netsetup.service import Outcome
from qvirt_netsetup.state import Store, is_alive
from qvirt_netsetup.tenancy import State

#: rtnetlink(7): the scope of addresses that others can reach.
_GLOBAL: Final = 0


async def _serve(request: NetworkRequest) -> Outcome:
    return await netns.run_inside(request.netns, lambda: service.serve(request, os.getpid()))


async def setup(request: NetworkRequest) -> Outcome:
    """Make the network of one VM; the descriptors in the outcome are the caller's to pass on and close.

    :raises NetworkError: nothing is left behind then.
    """
    return await _serve(msgspec.structs.replace(request, verb="up"))


async def teardown(request: NetworkRequest) -> NetworkReply:
    """Remove what the VM got. Doing it twice is fine.

    :raises NetworkError: something could not be removed; calling again tries again.
    """
    return (await _serve(msgspec.structs.replace(request, verb="down"))).reply


async def clean(request: NetworkRequest) -> NetworkReply:
    """Remove what VMs left whose owners have died.

    :raises NetworkError: the state can't be read, or a right is missing.
    """
    return (await _serve(msgspec.structs.replace(request, verb="clean"))).reply


async def addresses(path: str, link: str) -> tuple[str, ...]:
    """The global addresses of a link in the namespace at `path`, without prefix lengths, IPv4 first.

    :raises NetworkError: the namespace is gone, or a right is missing.
    """

    async def look() -> tuple[str, ...]:
        async with Kernel() as kernel:
            observed = await kernel.observe()
        found = [a for a in observed.addresses_of(link) if a.scope == _GLOBAL]
        plain = [ipaddress.ip_interface(a.address).ip for a in found]
        return tuple(str(ip) for ip in sorted(plain, key=lambda ip: ip.version))

    return await netns.run_inside(path, look)


async def forget(state_dir: str) -> tuple[str, ...]:
    """Forget set-ups that ended with their network namespace: those whose owners have all died. Touches no network.

    For namespaces of pods, which vanish as a whole. Returns the VMs (``namespace/name``).

    :raises NetworkError: the directory is locked for too long, or can't be read.
    """
    async with Store(state_dir).locked():
        return tuple(_forget(Path(state_dir)))


def _forget(directory: Path) -> list[str]:
    forgotten: list[str] = []
    for path in directory.glob("net-*.json"):
        try:
            state = msgspec.json.decode(path.read_bytes(), type=State)
        except (OSError, msgspec.DecodeError) as error:
            raise StateUnreadable(f"{path}: {error}; remove the file") from error
        if not any(is_alive(tenant.owner) for tenant in state.tenants):
            path.unlink()
            forgotten += [tenant.label for tenant in state.tenants]
    return forgotten
