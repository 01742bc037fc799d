"""Locks between processes, by flock: the kernel frees them whatever way the holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qvirt_cluster.progress import say


@contextmanager
def held(path: Path, what: str) -> Iterator[int]:
    """Hold the lock at `path`, waiting for it if another process has it, and say so.

    :param what: what the other one is doing, for the message.
    Gives the lock's descriptor: a child that inherits it keeps the lock held if we are killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "?"
            say(f"waiting: process {holder} is {what}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)
