"""Nameservers and search domains for guests, from a ``resolv.conf`` (resolv.conf(5)). Pure."""

from __future__ import annotations

import ipaddress
from typing import Final

from qvirt_crds.model import Model

#: What KubeVirt gives a guest whose pod has none.
FALLBACK: Final = ("8.8.8.8",)


class Resolver(Model, frozen=True, kw_only=True):
    """What a ``resolv.conf`` says."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def parse(text: str) -> Resolver:
    """The nameservers that are addresses, and the last ``search`` (or ``domain``) line."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1]):
            servers.append(words[1])
        elif len(words) > 1 and words[0] in ("search", "domain"):
            search = tuple(words[1:]) if words[0] == "search" else (words[1],)
    return Resolver(nameservers=tuple(servers), search=search)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def reachable(servers: tuple[str, ...]) -> tuple[str, ...]:
    """Those that another machine can reach: no loopback ones (a local stub resolver), none bound to a link."""
    addresses = [
        (server, ipaddress.ip_address(server)) for server in servers if _is_address(server)
    ]
    return tuple(
        server
        for server, address in addresses
        if not address.is_loopback and not address.is_link_local and not address.is_unspecified
    )


def with_subdomain(search: tuple[str, ...], subdomain: str) -> tuple[str, ...]:
    """KubeVirt's rule: ``<subdomain>.<longest search domain that has .svc. in it>`` comes first."""
    services = [domain for domain in search if ".svc." in domain]
    if not subdomain or not services:
        return search
    first = f"{subdomain}.{max(services, key=len)}"
    return search if first in search else (first, *search)
