"""Sidecars that hold containerDisks' images open: found among the processes that share our namespace, ended with our guest.

`/proc` is all that is needed: pod and user are the same, so that a holder's files can be reached through its process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import Final

import msgspec

from qvirt_crds.pod_layout import HOLDER_PIPE, held_volume

_log = logging.getLogger(__name__)

PROC: Final = "/proc"


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """One process."""

    pid: int
    volume: str
    #: Its root directory, seen from here.
    root: str


def find_holders(proc: str | os.PathLike[str] = PROC) -> tuple[Holder, ...]:
    """All holders that run as our user. A process that only claims to be one can do no more than show us its own files."""
    found = []
    for name in filter(str.isdecimal, os.listdir(proc)):
        entry = os.path.join(proc, name)
        volume = _volume_of(entry)
        if volume is not None:
            found.append(Holder(pid=int(name), volume=volume, root=os.path.join(entry, "root")))
    return tuple(sorted(found, key=lambda holder: holder.pid))


def show_life(pipe: str = HOLDER_PIPE) -> None:
    """From now on holders end with this process, however it ends: the kernel closes their pipe then."""
    # For reading, too: else this would wait for the first holder. A pod without holders has no pipe.
    with contextlib.suppress(FileNotFoundError):
        os.open(pipe, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)


def end_holders() -> None:
    """Ask all of them to go. The pod ends only when every one of its containers has."""
    for holder in find_holders():
        _end(holder)


def _volume_of(entry: str) -> str | None:
    # Processes come and go while we look.
    with contextlib.suppress(OSError):
        if os.stat(entry).st_uid == os.geteuid():
            with open(os.path.join(entry, "cmdline"), "rb") as file:
                arguments = file.read().split(b"\0")[:-1]
            return held_volume(tuple(word.decode(errors="replace") for word in arguments))
    return None


def _end(holder: Holder) -> None:
    try:
        handle = os.pidfd_open(holder.pid)
    except OSError:
        return  # gone by itself
    try:
        # Looked at again, now that the number can't be given to another process.
        if _volume_of(f"{PROC}/{holder.pid}") == holder.volume:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        return
    except OSError as error:
        _log.warning("volume %s: its holder can't be ended: %s", holder.volume, error.strerror)
    finally:
        os.close(handle)
