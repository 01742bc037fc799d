"""Kernel settings below ``/proc/sys/net`` of the calling thread's network namespace.

Keys are paths such as ``net/ipv4/ip_forward``. ``/proc/sys/net`` follows the namespace of the thread that opens it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from qvirt_netsetup.errors import from_errno

_ROOT = "/proc/sys"


def read(key: str) -> str | None:
    """The value without its newline; None: this kernel (or this link) hasn't got the setting."""
    try:
        with open(f"{_ROOT}/{key}", encoding="ascii") as file:
            return file.read().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_all(keys: Iterable[str]) -> dict[str, str]:
    """Those of the settings that exist."""
    values = ((key, read(key)) for key in keys)
    return {key: value for key, value in values if value is not None}


def write(key: str, value: str) -> None:
    """Set it, unless it has that value already: containers often have ``/proc/sys`` read-only but well set.

    :raises NotPermitted: no right, or ``/proc/sys`` is read-only.
    """
    if read(key) == value:
        return
    try:
        with open(f"{_ROOT}/{key}", "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        code = error.errno or errno.EIO
        if code == errno.EROFS:
            code = errno.EACCES
        raise from_errno(f"setting {key} to {value}", code) from error


def per_link(family: str, setting: str) -> dict[str, str]:
    """``net/<family>/conf/<link>/<setting>`` of every link, ``all`` and ``default`` included; key -> value."""
    base = f"net/{family}/conf"
    try:
        links = sorted(os.listdir(f"{_ROOT}/{base}"))
    except FileNotFoundError:
        return {}
    return read_all(f"{base}/{link}/{setting}" for link in links)
