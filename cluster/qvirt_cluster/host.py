"""Facts of this machine that the configuration needs."""

from __future__ import annotations

import json
import re
import resource
import socket
from dataclasses import dataclass
from pathlib import Path

from qvirt_cluster.commands import run
from qvirt_cluster.errors import CommandFailed, UsageError


@dataclass(frozen=True)
class Host:
    """:param node: the name of the node, valid as a Kubernetes name.
    :param address: the IPv4 address that the API server advertises to pods.
    :param open_files: how many descriptors a process may have here.
    :param unified_cgroups: the machine has cgroup v2 only.
    """

    node: str
    address: str
    open_files: int
    unified_cgroups: bool


def look() -> Host:
    """:raise UsageError: the machine has no IPv4 address with a default route."""
    return Host(
        node=node_name(socket.gethostname()),
        address=_default_address(),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        unified_cgroups=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
    )


def node_name(hostname: str) -> str:
    """A host name as a Kubernetes name (RFC 1123: lower case letters, digits, dots, dashes). Pure."""
    name = re.sub(r"[^a-z0-9.-]", "-", hostname.lower()).strip("-.")[:63].rstrip("-.")
    return name or "node"


def _default_address() -> str:
    """The source address of the default route, as kubelet and the API server choose it themselves."""
    try:
        # Asks the kernel's routing table only; nothing is sent. The address is one of TEST-NET-2.
        routes = json.loads(run("ip", "-json", "-4", "route", "get", "198.51.100.1"))
        address = routes[0]["prefsrc"]
    except (CommandFailed, KeyError, IndexError, ValueError) as error:
        raise UsageError(
            f"this machine has no default IPv4 route, which kubelet needs to find its address: {error}"
        ) from error
    return str(address)
