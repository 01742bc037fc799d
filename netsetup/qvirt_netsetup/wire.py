"""How a request and its reply travel over a stream socketpair: one JSON document each, descriptors beside the reply.

The requester sends its document and shuts its sending side down; the answerer does the same, with all descriptors on the first
byte.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from typing import Final

from qvirt_netsetup.errors import SetupFailed
from qvirt_netsetup.request import MAX_DESCRIPTORS

_CHUNK: Final = 65536
_LIMIT: Final = 4 * 1024 * 1024


def send(sock: socket.socket, document: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """Send everything and say that it's all. The caller keeps (and closes) its descriptors."""
    sent = socket.send_fds(sock, [document], descriptors) if descriptors else 0
    sock.sendall(document[sent:])
    sock.shutdown(socket.SHUT_WR)


class Inbox:
    """What has arrived so far. Its descriptors belong to it until somebody takes them."""

    def __init__(self) -> None:
        self.document = bytearray()
        self.descriptors: list[int] = []

    def take(self, sock: socket.socket) -> bool:
        """Receive once; returns whether that was the end.

        :raises SetupFailed: too long, or descriptors were lost (our limit of open files).
        :raises BlockingIOError: a non-blocking socket has nothing yet.
        """
        size = array.array("i").itemsize * MAX_DESCRIPTORS
        try:
            data, ancillary, flags, _ = sock.recvmsg(
                _CHUNK, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:  # it ended without reading all that we had sent
            return True
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                self.descriptors += numbers
        if flags & socket.MSG_CTRUNC:
            raise SetupFailed(
                "network set-up: descriptors were lost; raise the limit of open files (ulimit -n)"
            )
        self.document += data
        if len(self.document) > _LIMIT:
            raise SetupFailed(f"network set-up: a message of more than {_LIMIT} bytes")
        return not data

    def discard(self) -> None:
        """Close the descriptors."""
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors.clear()


def receive(sock: socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """Everything until the other side has finished, and the (close-on-exec) descriptors that came along. Blocks.

    :raises SetupFailed: as `Inbox.take`.
    """
    inbox = Inbox()
    try:
        while not inbox.take(sock):
            pass
    except SetupFailed:
        inbox.discard()
        raise
    return bytes(inbox.document), tuple(inbox.descriptors)


async def receive_soon(sock: socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """The same from a non-blocking socket, waiting in the event loop. Cancelled, it closes what had come.

    :raises SetupFailed: as `Inbox.take`.
    """
    loop = asyncio.get_running_loop()
    inbox = Inbox()
    done: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        try:
            ended = inbox.take(sock)
        except BlockingIOError:
            return
        except SetupFailed as error:
            loop.remove_reader(sock)
            done.set_exception(error)
        else:
            if ended:
                loop.remove_reader(sock)
                done.set_result(None)

    loop.add_reader(sock, readable)
    try:
        await done
    except BaseException:
        inbox.discard()
        raise
    finally:
        loop.remove_reader(sock)
    return bytes(inbox.document), tuple(inbox.descriptors)
