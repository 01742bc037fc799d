"""Work inside another network namespace.

The namespace belongs to a thread. All that is done for one request (netlink sockets, ``/dev/net/tun``, ``/proc/sys/net``, packet
sockets) happens in one fresh thread that enters the namespace first and ends afterwards: a netlink socket that was made in
one thread and used from another would silently speak to the wrong namespace.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from qvirt_netsetup.errors import NamespaceGone, from_errno

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
#: asm-generic/socket.h; Python has no name for it.
_SO_NETNS_COOKIE = 71
_libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12


def enter(path: str) -> None:
    """Put the calling thread into the network namespace at `path`.

    :raises NamespaceGone: there is no such file, or it isn't a network namespace.
    :raises NotPermitted: CAP_SYS_ADMIN is missing.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise from_errno(f"network namespace {path}", errno.EACCES) from error
        raise NamespaceGone(
            f"network namespace {path}: {error.strerror}; is its pod still running?"
        ) from error
    try:
        if _libc.setns(fd, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            if code == errno.EINVAL:
                raise NamespaceGone(f"network namespace {path}: not a network namespace")
            raise from_errno(f"network namespace {path}", code)
    finally:
        os.close(fd)


def identity() -> str:
    """A name of the calling thread's network namespace that no other one gets until the next boot.

    The inode alone is not it: the kernel gives it to a new namespace as soon as the old one has ended. Kernels before 5.14
    have no cookie; there, what is remembered of a pod must be forgotten before the next pod comes.
    """
    inode = os.stat("/proc/thread-self/ns/net").st_ino
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            cookie = sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return f"{inode}"
    return f"{inode}-{int.from_bytes(cookie, sys.byteorder):x}"


async def run_inside(path: str, work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` in its own thread and event loop, inside the namespace at `path` (empty: the process's own).

    The thread isn't interrupted when the caller is cancelled: half a set-up would be worse. Its work has deadlines.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    async def inner() -> T:
        return await work()

    def finish(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # T may itself be None

    def body() -> None:
        try:
            if path:
                enter(path)
            outcome = asyncio.run(inner())
        except BaseException as error:  # noqa: BLE001  # handed to the caller, whatever it is
            loop.call_soon_threadsafe(finish, None, error)
        else:
            loop.call_soon_threadsafe(finish, outcome, None)

    threading.Thread(target=body, name="netns", daemon=True).start()
    return await done
