"""Rules about single values: quantities, names, text that goes into a command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from qvirt_crds.defaults import MACHINE_TYPE
from qvirt_crds.domain import Domain
from qvirt_crds.errors import Cause
from qvirt_crds.quantity import Quantity, parse_quantity

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MAX_QUANTITY: Final = 2**63 - 1
#: Domain, bus, slot and function, as ``lspci -D`` prints them.
_PCI_ADDRESS: Final = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7]")


def not_implemented(path: str, remedy: str = "") -> Cause:
    """A field or value that KubeVirt honours and we can't yet."""
    sentence = "KubeVirt has this; qvirt does not implement it yet"
    return Cause(path=path, message=f"{sentence}: {remedy}" if remedy else sentence)


def machine_type_of(domain: Domain) -> str:
    """The machine type, or the default when none is given."""
    return (domain.machine.type if domain.machine else "") or MACHINE_TYPE


def is_dns_label(text: str) -> bool:
    """DNS-1123 label: what names of volumes, disks and hosts may be."""
    return _LABEL.fullmatch(text) is not None


def is_dns_subdomain(text: str) -> bool:
    """DNS-1123 subdomain: labels joined by dots, at most 253 characters; what names of objects may be."""
    return len(text) <= 253 and all(map(is_dns_label, text.split(".")))


def is_pci_address(text: str) -> bool:
    """``0000:81:01.0``"""
    return _PCI_ADDRESS.fullmatch(text) is not None


def dns_label(text: str, path: str) -> Iterator[Cause]:
    """Refuses what is not a DNS-1123 label."""
    if not is_dns_label(text):
        yield Cause(
            path=path,
            message=f"{text!r} is not a DNS-1123 label: 1 to 63 lower case letters, digits or '-', with a letter or digit at both ends",
        )


def quantity(value: Quantity, path: str) -> Iterator[Cause]:
    """Refuses what is not a quantity, or is one that Kubernetes can't hold."""
    try:
        parsed = parse_quantity(value)
    except ValueError as error:
        yield Cause(path=path, message=str(error))
        return
    if parsed > _MAX_QUANTITY:
        yield Cause(path=path, message=f"{value} is more than a quantity can be ({_MAX_QUANTITY})")


def within(value: Quantity | None, path: str, least: int, written: str) -> Iterator[Cause]:
    """Refuses a quantity below the least; unreadable ones are `quantity`'s."""
    try:
        too_little = value is not None and parse_quantity(value) < least
    except ValueError:
        return
    if too_little:
        message = f"{path} '{value}': must be greater than or equal to {written}."
        yield Cause(path=path, message=message)


def printable(text: str, path: str) -> Iterator[Cause]:
    """Refuses control characters, line ends among them, in text that firmware or QEMU is given."""
    if not all(c.isprintable() for c in text):
        yield Cause(path=path, message="control characters and line ends have no place here")


def at_most(count: int, path: str, limit: int = 256) -> Iterator[Cause]:
    """Refuses a list that is longer than KubeVirt's limit."""
    if count > limit:
        yield Cause(path=path, message=f"{path} list exceeds the {limit} element limit in length")
