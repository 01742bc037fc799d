"""Does a command's argument point at something outside the guest? Pure.

Paths, URIs, character devices and descriptors name things of the host (or pod) that QEMU would open with its own rights.
The judgement is by name and by looks, on the safe side: `policy` asks it only where arguments are otherwise free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

#: Members of QEMU's QAPI schema, and properties of devices and objects, that name something outside; the lists were made from those of
#: QEMU 7.2 and a test compares them with the QEMU that is installed.
_OUTSIDE: Final = re.compile(
    r"""
    (.*[-_.])? (path|uri|url|dir|fd|fds|fdname|fdset|socket|chardev\d*|script|helper|device-path) |
    .*file | .*filename | .*fdset-id | vhostfds? | rootdir | mountpoint | mem-path |
    host | hostname | hostdevice | hostbus | hostaddr | hostport | sysfsdev | hidraw | evdev | ibdev | pcap |
    kernel | initrd | cdat | ifname | br | smb | tftp | tls-creds | .*secret
    """,
    re.VERBOSE,
)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})*")


def names_outside(key: str) -> bool:
    """Whether a member of this name points outside, whatever its value."""
    return _OUTSIDE.fullmatch(key.lower().replace("_", "-")) is not None


def looks_outside(text: str) -> bool:
    """Whether a string looks like a path or URI. A MAC address doesn't."""
    if "/" in text or "\0" in text:
        return True
    return _SCHEME.match(text) is not None and _MAC.fullmatch(text) is None


def outside_reference(value: object, where: str = "arguments") -> str | None:
    """The first part of ``value`` (at any depth) that points outside, in words; None: there is none."""
    if isinstance(value, str):
        return f"{where} looks like a path or URI" if looks_outside(value) else None
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str) or looks_outside(key) or names_outside(key):
                return f"{where}.{key} names something outside of the guest"
            if found := outside_reference(part, f"{where}.{key}"):
                return found
    elif isinstance(value, (list, tuple)):
        for at, part in enumerate(value):
            if found := outside_reference(part, f"{where}[{at}]"):
                return found
    return None
