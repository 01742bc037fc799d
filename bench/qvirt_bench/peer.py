"""`python -m qvirt_bench.peer SOURCE SINK`: two TCP ports that are as fast as this machine, for a namespace of somebody else's.

SOURCE sends as many bytes as it is asked for (8 bytes, big endian; or HTTP's ``GET /number``); SINK takes as many and answers
one byte when it has them all. Says "ready" when it listens. Nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final

_CHUNK: Final = 1 << 20
#: Of the number that a client begins with.
HEAD: Final = 8
#: What a sink answers.
DONE: Final = b"!"


def source(connection: socket.socket, count: int) -> None:
    """Send."""
    chunk = memoryview(bytes(_CHUNK))
    while count:
        count -= connection.send(chunk[:count])


def sink(connection: socket.socket, count: int) -> None:
    """Take."""
    buffer = bytearray(_CHUNK)
    while count:
        taken = connection.recv_into(buffer, min(_CHUNK, count))
        if not taken:
            return
        count -= taken
    connection.sendall(DONE)


def _serve(port: int, act: Callable[[socket.socket, int], None]) -> None:
    with socket.create_server(("", port), backlog=128) as listening:
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_talk, args=(connection, act), daemon=True).start()


def _talk(connection: socket.socket, act: Callable[[socket.socket, int], None]) -> None:
    with connection, contextlib.suppress(OSError):
        head = connection.recv(HEAD, socket.MSG_WAITALL)
        if head.startswith(b"GET /"):
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1, socket.MSG_WAITALL) or b"\r\n\r\n"
            count = int(head.split(b" ")[1].rpartition(b"/")[2])
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count)
            act(connection, count)
        elif len(head) == HEAD:
            act(connection, int.from_bytes(head, "big"))


def main() -> None:
    """Until it is killed."""
    first, second = map(int, sys.argv[1:])
    threading.Thread(target=_serve, args=(first, source), daemon=True).start()
    print("ready", flush=True)
    _serve(second, sink)


if __name__ == "__main__":
    main()
