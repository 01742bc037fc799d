"""The console on a real pseudo-terminal, and on plain pipes."""

from __future__ import annotations

import os
import pty
import select
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

_PROGRAM = """
import asyncio, sys
from qvirt_launcher.cli.terminal import Attachment, local_console, raw_mode
with raw_mode():
    how = asyncio.run(Attachment(lambda: local_console(sys.argv[1]), sys.argv[2]).run())
print("ended:", how)
"""


class Guest:
    """The other end of a console."""

    def __init__(self, path: Path) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._server.settimeout(30)
        self.path = path

    def accept(self) -> socket.socket:
        connection, _ = self._server.accept()
        connection.settimeout(30)
        return connection

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = Guest(tmp_path / "console.sock")
    yield made
    made.close()


def argv(guest: Guest, until: str = "") -> list[str]:
    return [sys.executable, "-c", _PROGRAM, str(guest.path), until]


def read_until(handle: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        ready, _, _ = select.select([handle], [], [], 30)
        assert ready, f"{text!r} did not come, only {seen!r}"
        seen += os.read(handle, 4096)
    return seen


def test_a_terminal_is_raw_until_the_escape_and_then_as_before(guest: Guest) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(argv(guest), stdin=theirs, stdout=theirs, stderr=theirs)
    with guest.accept() as line:
        line.sendall(b"login: ")
        read_until(ours, b"login: ")
        local = termios.tcgetattr(theirs)[3]
        assert not local & (termios.ECHO | termios.ICANON | termios.ISIG)
        # Ctrl-C is the guest's, and so is a carriage return.
        os.write(ours, b"root\r\x03")
        assert line.recv(100) == b"root\r\x03"
        os.write(ours, b"x\x1dy")
        assert line.recv(100) == b"x"
        read_until(ours, b"ended: escape")
    assert process.wait(timeout=30) == 0
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_the_end_of_the_guest_is_the_end(guest: Guest) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(argv(guest), stdin=theirs, stdout=theirs, stderr=theirs)
    with guest.accept() as line:
        line.sendall(b"Power down.")
    assert b"Power down." in read_until(ours, b"ended: closed")
    assert process.wait(timeout=30) == 0
    os.close(ours)
    os.close(theirs)


def test_pipes_go_both_ways_and_the_escape_is_just_a_byte(guest: Guest) -> None:
    process = subprocess.Popen(argv(guest), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    with guest.accept() as line:
        process.stdin.write(b"a\x1db")
        process.stdin.close()
        assert line.recv(100) == b"a\x1db"
        line.sendall(b"still there\n")
    process.stdin = None
    out, _ = process.communicate(timeout=30)
    assert out == b"still there\nended: closed\n"


@pytest.mark.parametrize("source", [os.devnull, "file"])
def test_input_that_never_blocks(guest: Guest, tmp_path: Path, source: str) -> None:
    """epoll refuses regular files and /dev/null."""
    path = Path(source)
    if source == "file":
        path = tmp_path / "typed"
        path.write_bytes(b"typed")
    with path.open("rb") as file:
        process = subprocess.Popen(argv(guest), stdin=file, stdout=subprocess.PIPE)
    with guest.accept() as line:
        if source == "file":
            assert line.recv(100) == b"typed"
        line.sendall(b"hello\n")
    out, _ = process.communicate(timeout=30)
    assert out == b"hello\nended: closed\n"


def test_until_a_text_that_comes_in_pieces(guest: Guest) -> None:
    process = subprocess.Popen(
        argv(guest, "login:"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    with guest.accept() as line:
        for piece in (b"lo", b"gin", b": "):
            line.sendall(piece)
        out, _ = process.communicate(timeout=30)
    assert out.endswith(b"ended: found\n")


def test_no_console(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "gone.sock"), ""],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert "has the VM a serial console, and does it run?" in done.stderr
