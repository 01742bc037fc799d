"""Set up and take down a VM's network from within an asyncio program (virt-handler).

The work happens in a thread of its own inside the namespace asked for; the caller's thread stays where it is.
"""

from __future__ import annotations

import os

import msgspec

from qvirt_netsetup import netns, service
from qvirt_netsetup.request import NetworkReply, NetworkRequest
from qvirt_netsetup.service import Outcome


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
