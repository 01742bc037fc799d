"""The far end of a guest's connections: streams for a while, round trips one by one. All in threads, so that nothing else runs between."""

from __future__ import annotations

import array
import fcntl
import socket
import termios
import time
from collections.abc import Callable
from typing import Final

import msgspec

from qvirt_bench.errors import BenchError

#: A stream runs for so long before it counts: TCP's windows grow.
_WARM: Final = 0.5
_CHUNK: Final = 1 << 20
_DEADLINE: Final = 30.0


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """What passed within a window of time."""

    octets: int
    seconds: float
    #: What a counter of the caller's (CPU time) gained in it.
    spent: float

    @property
    def mbit(self) -> float:
        """Per second."""
        return self.octets * 8 / self.seconds / 1e6


def received(sock: socket.socket, seconds: float, counter: Callable[[], float]) -> Stream:
    """Read all that comes.

    :raise BenchError: the other end hung up.
    """
    buffer = bytearray(_CHUNK)

    def step() -> int:
        taken = sock.recv_into(buffer)
        if not taken:
            raise BenchError("the guest stopped sending")
        return taken

    return _window(sock, step, seconds, counter, lambda: 0)


def sent(sock: socket.socket, seconds: float, counter: Callable[[], float]) -> Stream:
    """Write as much as is taken; what the other end has not acknowledged does not count."""
    buffer = bytes(_CHUNK)

    def waiting() -> int:
        found = array.array("i", [0])
        fcntl.ioctl(sock, termios.TIOCOUTQ, found)
        return found[0]

    return _window(sock, lambda: sock.send(buffer), seconds, counter, waiting)


def _window(
    sock: socket.socket,
    step: Callable[[], int],
    seconds: float,
    counter: Callable[[], float],
    waiting: Callable[[], int],
) -> Stream:
    sock.settimeout(_DEADLINE)
    until = time.monotonic() + _WARM
    while time.monotonic() < until:
        step()
    before, spent, begun = waiting(), counter(), time.monotonic()
    octets = 0
    while (now := time.monotonic()) < begun + seconds:
        octets += step()
    return Stream(octets=octets + before - waiting(), seconds=now - begun, spent=counter() - spent)


def round_trips(sock: socket.socket, size: int, count: int) -> list[float]:
    """Microseconds of each of ``count`` messages to an echo server and back, one after another."""
    sock.settimeout(_DEADLINE)
    message, buffer = bytes(size), bytearray(size)
    taken: list[float] = []
    for _ in range(count):
        begun = time.perf_counter()
        sock.sendall(message)
        view, left = memoryview(buffer), size
        while left:
            got = sock.recv_into(view)
            if not got:
                raise BenchError("the guest's echo server hung up")
            view, left = view[got:], left - got
        taken.append((time.perf_counter() - begun) * 1e6)
    return taken
