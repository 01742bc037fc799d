"""What was done for whom, so that it can be undone: one file a network namespace, under a lock.

Written before anything is changed, so that whoever comes after a crash knows what to remove.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from qvirt_netsetup import netns
from qvirt_netsetup.errors import NotPermitted, StateUnreadable
from qvirt_netsetup.tenancy import Owner, State

#: A set-up takes well under a second; somebody who holds the lock for this long is stuck.
_LOCK_SECONDS: Final = 30.0
_LOCK_POLL: Final = 0.05


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None: there is none (proc(5), field 22 of stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    # A zombie does nothing any more.
    return None if fields[0] in "ZX" else int(fields[19])


def owner_of(pid: int) -> Owner:
    """That process, now. One that is gone already is an owner that is dead."""
    start = start_time(pid)
    return Owner(pid=pid, start=-1 if start is None else start)


def is_alive(owner: Owner) -> bool:
    """Whether that very process still runs."""
    return start_time(owner.pid) == owner.start


class Store:
    """The state file of the calling thread's namespace."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._path = self._directory / f"net-{netns.identity()}.json"

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the lock, which is the directory itself; one set-up at a time. An empty directory is removed at the end.

        :raises StateUnreadable: somebody else holds it for too long.
        :raises NotPermitted: the directory can't be made or written.
        """
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            fd = self._open()
            try:
                await self._wait(fd, until)
                if not self._is_current(fd):
                    continue  # its last holder removed it
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):
                        self._directory.rmdir()
                return
            finally:
                os.close(fd)

    def _open(self) -> int:
        while True:
            try:
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # removed in between
            except OSError as error:
                raise NotPermitted(
                    f"{error.filename or self._directory}: {error.strerror}; choose another directory, or start as root"
                ) from error

    def _is_current(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._directory.stat())
        except FileNotFoundError:
            return False

    async def _wait(self, fd: int, until: float) -> None:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise StateUnreadable(
                        f"{self._directory}: locked by another process for {_LOCK_SECONDS:.0f} s; see who: fuser {self._directory}"
                    ) from error
                await asyncio.sleep(_LOCK_POLL)
            else:
                return

    def load(self) -> State:
        """What is remembered; nothing, when there is no file.

        :raises StateUnreadable: the file is damaged.
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=State)
        except FileNotFoundError:
            return State()
        except (OSError, msgspec.DecodeError) as error:
            raise StateUnreadable(
                f"{self._path}: {error}; remove the file, then what it described: links qvirt0 and qv*, table inet qvirt"
            ) from error

    def save(self, state: State) -> None:
        """Replace the file at once; an empty state removes it."""
        if not state.tenants:
            self._path.unlink(missing_ok=True)
            return
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(state))
        fresh.replace(self._path)
