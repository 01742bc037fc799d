"""``--publish``: a port of this machine (or of a node) for one of the guest."""

from __future__ import annotations

import ipaddress

from qvirt_crds.report import PortForward
from qvirt_launcher.errors import UsageError


def parse_publish(text: str) -> PortForward:
    """``[ADDR:]HOST:GUEST[/udp]``; an IPv6 address in brackets.

    :raise UsageError: something else.
    """
    ports, _, protocol = text.partition("/")
    rest, _, guest = ports.rpartition(":")
    address, _, host = rest.rpartition(":")
    try:
        if protocol not in {"", "tcp", "udp"}:
            raise ValueError(protocol)
        return PortForward(
            host_port=_port(host),
            guest_port=_port(guest),
            protocol="udp" if protocol == "udp" else "tcp",
            host_address=str(ipaddress.ip_address(address.strip("[]") or "127.0.0.1")),
        )
    except ValueError:
        raise UsageError(
            f"--publish {text}: write it as [ADDRESS:]HOSTPORT:GUESTPORT[/udp], e.g. 8080:80"
        ) from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise ValueError(text)
    return int(text)
