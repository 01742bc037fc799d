"""How a request and its reply travel over a stream socketpair: one JSON document each, descriptors beside the reply.

The requester sends its document and shuts its sending side down; the answerer does the same, with all descriptors on the first
byte.
"""

from __future__ import annotations

import array
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


def receive(sock: socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """Everything until the other side has finished, and the (close-on-exec) descriptors that came along.

    :raises SetupFailed: too long, or descriptors were lost (our limit of open files).
    """
    document = bytearray()
    fds: list[int] = []
    size = array.array("i").itemsize * MAX_DESCRIPTORS
    try:
        while True:
            data, ancillary, flags, _ = sock.recvmsg(
                _CHUNK, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    numbers = array.array("i")
                    numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                    fds += numbers
            if flags & socket.MSG_CTRUNC:
                raise SetupFailed(
                    "network set-up: descriptors were lost; raise the limit of open files (ulimit -n)"
                )
            document += data
            if not data:
                return bytes(document), tuple(fds)
            if len(document) > _LIMIT:
                raise SetupFailed(f"network set-up: a message of more than {_LIMIT} bytes")
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
