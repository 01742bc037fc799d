"""Unix sockets: long paths, stale files, who is at the other end, and descriptors that travel along."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

#: Bytes of ``sun_path`` (unix(7)), less the terminating NUL.
_LONGEST_PATH: Final = 107
_INT_SIZE: Final = array.array("i").itemsize
#: A full backlog gives EAGAIN at once, and no way to wait for room.
_BUSY_PAUSE: Final = 0.02


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """The process at the other end, as the kernel noted it when the connection was made."""

    pid: int
    uid: int
    gid: int


class BoundPath(msgspec.Struct, frozen=True, kw_only=True):
    """A socket file of ours, remembered by identity so that nobody else's is ever removed."""

    path: str
    device: int
    inode: int

    def unlink(self) -> None:
        """Remove the file if it is still ours. A file that has gone is fine."""
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)


def peer_of(sock: socket.socket) -> Peer:
    """SO_PEERCRED (unix(7)); for a socketpair the process that made it."""
    form = struct.Struct("iII")
    pid, uid, gid = form.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size))
    return Peer(pid=pid, uid=uid, gid=gid)


async def connect_path(path: str) -> socket.socket:
    """A non-blocking socket connected to ``path``, which may be longer than ``sun_path``.

    :raises OSError: nobody listens, no such file, no permission. Waits for as long as the listener's backlog is full.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with _address_to_connect(path) as address:
            while True:
                try:
                    sock.connect(address)
                except BlockingIOError:
                    await asyncio.sleep(_BUSY_PAUSE)
                else:
                    return sock
    except BaseException:
        sock.close()
        raise


def listen_path(path: str, mode: int, backlog: int) -> tuple[socket.socket, BoundPath]:
    """A non-blocking socket listening at ``path`` with permissions ``mode``.

    A socket file that nobody listens on (left by a process that was killed) is replaced; anything else is not.

    :raises OSError: in use, not a socket, no such directory, no permission.
    """
    _remove_if_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with _address_to_bind(path) as address:
            sock.bind(address)
        found = os.lstat(path)
        bound = BoundPath(path=path, device=found.st_dev, inode=found.st_ino)
        try:
            # Before listen() nobody can connect, so there is no moment with wrong permissions, and the umask,
            # which belongs to the whole process, is left alone.
            os.chmod(path, mode)
            sock.listen(backlog)
        except BaseException:
            bound.unlink()
            raise
    except BaseException:
        sock.close()
        raise
    return sock, bound


async def readable(sock: socket.socket) -> None:
    """Wait until ``sock`` has something to read, or has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, wake)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


async def receive(sock: socket.socket, size: int, max_fds: int) -> tuple[bytes, list[int], bool]:
    """Up to ``size`` bytes (none: the peer has ended) with the descriptors that came along (close-on-exec).

    :returns: bytes, descriptors, and whether the kernel threw descriptors away because there were more than ``max_fds``.
    :raises OSError: the connection broke.
    """
    room = socket.CMSG_SPACE(max_fds * _INT_SIZE) if max_fds else 0
    while True:
        try:
            data, ancillary, flags, _ = sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            await readable(sock)
        else:
            return data, _descriptors(ancillary), bool(flags & socket.MSG_CTRUNC)


def send_with_fds(sock: socket.socket, data: bytes, fds: Sequence[int]) -> int:
    """Send the first bytes of ``data`` with ``fds`` attached to them; returns how many bytes went.

    :raises BlockingIOError: nothing went.
    """
    rights = array.array("i", fds)
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def close_all(fds: list[int]) -> None:
    """Close and forget descriptors."""
    while fds:
        os.close(fds.pop())


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(payload[: len(payload) - len(payload) % _INT_SIZE])
    return found.tolist()


def _remove_if_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(f"{path} exists and is not a socket: remove it")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            with _address_to_connect(path) as address:
                probe.connect(address)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise FileExistsError(f"another process listens on {path}")


@contextlib.contextmanager
def _address_to_connect(path: str) -> Iterator[str]:
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


@contextlib.contextmanager
def _address_to_bind(path: str) -> Iterator[str]:
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    directory, name = os.path.split(path)
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{name}"
    finally:
        os.close(handle)
