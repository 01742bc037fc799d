"""virt-console: the guest's serial console, inside of virt-launcher's container: for nodes without a control plane.

`podman exec -it myvm-compute virt-console`, or the same by any container runtime. Imports nothing but a little of Python's library.

Exit codes: 0 left by Ctrl-], found or the guest has ended; 1 nobody answers, or --until did not come in time; 2 usage.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import termios
import time
import tty
from collections.abc import Iterator

from qvirt_crds.names import CONSOLE_SOCKET
from qvirt_crds.pod_layout import RUN_DIR

#: Ctrl-], as in telnet and virsh.
_ESCAPE = b"\x1d"
_CHUNK = 4096
_USAGE = "usage: virt-console [--socket PATH] [--until TEXT] [--timeout SECONDS]"


class Usage(Exception):
    """A command line that makes no sense."""


def main() -> int:
    """The console script ``virt-console``."""
    try:
        path, until, seconds = _read(sys.argv[1:])
    except Usage:
        print(_USAGE, file=sys.stderr)  # noqa: T201
        return 2
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            with _raw() as terminal:
                if terminal:
                    sys.stderr.write("virt-console: Ctrl-] leaves\r\n")
                with contextlib.suppress(ConnectionError):  # it hung up
                    return _pass(sock, until, seconds, terminal)
                return 1 if until else 0
    except OSError as error:
        print(f"virt-console: {path}: {error.strerror}; does the guest run?", file=sys.stderr)  # noqa: T201
        return 1


def _read(words: list[str]) -> tuple[str, bytes, float | None]:
    """Socket, text that ends it, seconds."""
    given = {"--socket": f"{RUN_DIR}/{CONSOLE_SOCKET}", "--until": "", "--timeout": ""}
    left = list(words)
    while left:
        word = left.pop(0)
        if word not in given or not left:
            raise Usage
        given[word] = left.pop(0)
    try:
        seconds = float(given["--timeout"]) if given["--timeout"] else None
    except ValueError:
        raise Usage from None
    return given["--socket"], given["--until"].encode(), seconds


@contextlib.contextmanager
def _raw() -> Iterator[bool]:
    """The terminal without line editing and signals; nothing if standard input is none."""
    if not os.isatty(0):
        yield False
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield True
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)


def _pass(sock: socket.socket, until: bytes, seconds: float | None, terminal: bool) -> int:
    """Bytes both ways until the end."""
    end = None if seconds is None else time.monotonic() + seconds
    sources: list[int] = [sock.fileno(), 0]
    seen = b""
    while True:
        left = None if end is None else max(end - time.monotonic(), 0)
        ready, _, _ = select.select(sources, [], [], left)
        if not ready:
            return 1 if until else 0
        if 0 in ready:
            typed = os.read(0, _CHUNK)
            if not typed:
                sources.remove(0)  # the end of a pipe: what the guest says is still shown
            text, escape, _ = typed.partition(_ESCAPE) if terminal else (typed, b"", b"")
            if text:
                sock.sendall(text)
            if escape:
                return 0
        if sock.fileno() in ready:
            said = sock.recv(_CHUNK)
            if not said:
                return 1 if until else 0
            os.write(1, said)
            seen = seen[-len(until) :] + said if until else b""
            if until and until in seen:
                return 0


if __name__ == "__main__":
    sys.exit(main())
