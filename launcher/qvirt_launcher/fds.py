"""Descriptor numbers in the QEMU process, fixed so that the same manifest gives the same argv everywhere.

The launcher moves what it was handed (monitor socket, taps) to these numbers before it starts QEMU. A launcher serves one
VM and opens few files, so numbers from 200 up are free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from qvirt_crds.report import Attachment

MONITOR_FD: Final = 200
_TAP_BASE: Final = 210


def tap_numbers(attachments: tuple[Attachment, ...]) -> dict[str, tuple[int, ...]]:
    """Interface name -> QEMU's descriptor numbers for its tap, one a queue, in order of the attachments."""
    return _numbered({a.interface: len(a.tap_fds) for a in attachments}, _TAP_BASE)


def vhost_numbers(attachments: tuple[Attachment, ...]) -> dict[str, tuple[int, ...]]:
    """As `tap_numbers`, for vhost-net; they come behind all taps."""
    following = _TAP_BASE + sum(len(attachment.tap_fds) for attachment in attachments)
    return _numbered({a.interface: len(a.vhost_fds) for a in attachments}, following)


def _numbered(counts: Mapping[str, int], following: int) -> dict[str, tuple[int, ...]]:
    numbers: dict[str, tuple[int, ...]] = {}
    for name, count in counts.items():
        numbers[name] = tuple(range(following, following + count))
        following += count
    return numbers
