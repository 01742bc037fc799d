"""The real QEMU on a socketpair, without a guest."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

QEMU = "qemu-system-x86_64"

StartQemu = Callable[..., tuple[subprocess.Popen[bytes], socket.socket]]


@pytest.fixture
def start_qemu() -> Iterator[StartQemu]:
    """Starts QEMU, stopped (``-S``), with the given options; gives the process and our end of its monitor."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"needs {QEMU}")
    started: list[subprocess.Popen[bytes]] = []
    ours: list[socket.socket] = []

    def start(*options: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
        here, there = socket.socketpair()
        with there:
            fd = there.fileno()
            process = subprocess.Popen(
                [QEMU, "-S", "-accel", "tcg", "-display", "none", "-nodefaults", "-no-user-config"]
                + ["-chardev", f"socket,id=monitor,fd={fd}", "-mon", "chardev=monitor,mode=control"]
                + (["-machine", "none"] if "-machine" not in options else [])
                + list(options),
                pass_fds=[fd],
                stdin=subprocess.DEVNULL,
            )
        started.append(process)
        ours.append(here)
        return process, here

    yield start
    for process in started:
        process.kill()
        process.wait(10)
    for sock in ours:
        sock.close()
