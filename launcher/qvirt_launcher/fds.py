"""Descriptor numbers in the QEMU process, fixed so that the same manifest gives the same argv everywhere.

The launcher moves what it was handed (monitor socket, taps) to these numbers before it starts QEMU. A launcher serves one
VM and opens few files, so numbers from 200 up are free.
"""

from __future__ import annotations

from typing import Final

from qvirt_crds.report import Attachment

MONITOR_FD: Final = 200
_TAP_BASE: Final = 210


def tap_numbers(attachments: tuple[Attachment, ...]) -> dict[str, tuple[int, ...]]:
    """Interface name -> QEMU's descriptor numbers for its tap, one a queue, in order of the attachments."""
    numbers: dict[str, tuple[int, ...]] = {}
    following = _TAP_BASE
    for attachment in attachments:
        count = len(attachment.tap_fds)
        numbers[attachment.interface] = tuple(range(following, following + count))
        following += count
    return numbers
