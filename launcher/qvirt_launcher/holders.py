"""Sidecars that hold containerDisks' images open: found among the processes that share our namespace, ended with our guest.

`/proc` is all that is needed: pod and user are the same, so that a holder's files can be reached through its process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import Final

import msgspec

from qvirt_crds.pod_layout import held_volume

_log = logging.getLogger(__name__)

PROC: Final = Path("/proc")


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """One process."""

    pid: int
    volume: str
    #: Its root directory, seen from here.
    root: Path


def find_holders(proc: Path = PROC) -> tuple[Holder, ...]:
    """All holders that run as our user. A process that only claims to be one can do no more than show us its own files."""
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdecimal():
            continue
        volume = _volume_of(entry)
        if volume is not None:
            found.append(Holder(pid=int(entry.name), volume=volume, root=entry / "root"))
    return tuple(sorted(found, key=lambda holder: holder.pid))


def end_holders() -> None:
    """Ask all of them to go. The pod ends only when every one of its containers has."""
    for holder in find_holders():
        _end(holder)


def _volume_of(entry: Path) -> str | None:
    # Processes come and go while we look.
    with contextlib.suppress(OSError):
        if entry.stat().st_uid == os.geteuid():
            arguments = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
            return held_volume(tuple(word.decode(errors="replace") for word in arguments))
    return None


def _end(holder: Holder) -> None:
    try:
        handle = os.pidfd_open(holder.pid)
    except OSError:
        return  # gone by itself
    try:
        # Looked at again, now that the number can't be given to another process.
        if _volume_of(PROC / str(holder.pid)) == holder.volume:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        return
    except OSError as error:
        _log.warning("volume %s: its holder can't be ended: %s", holder.volume, error.strerror)
    finally:
        os.close(handle)
