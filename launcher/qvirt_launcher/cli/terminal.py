"""A guest's serial console on this terminal, or on plain standard input and output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from qvirt_launcher.cli.pipes import Pipe, StreamPipe
from qvirt_qmp import sockets
from qvirt_qmp.errors import ConnectFailed

#: Ctrl-], as in telnet and virsh.
ESCAPE: Final = b"\x1d"
_CHUNK: Final = 4096


@contextlib.contextmanager
def raw_mode() -> Iterator[bool]:
    """The terminal without line editing and signals, put back at the end; nothing if standard input is none."""
    handle = sys.stdin.fileno()
    if not os.isatty(handle):
        yield False
        return
    before = termios.tcgetattr(handle)
    try:
        tty.setraw(handle)
        yield True
    finally:
        termios.tcsetattr(handle, termios.TCSAFLUSH, before)


async def local_console(path: str) -> Pipe:
    """The console of a VM of this machine.

    :raise ConnectFailed: the guest has none that can be attached to.
    """
    try:
        sock = await sockets.connect_path(path)
    except OSError as error:
        raise ConnectFailed(
            "the console", f"{error.strerror}; has the VM a serial console, and does it run?"
        ) from error
    return StreamPipe(*await asyncio.open_unix_connection(sock=sock))


class Attachment:
    """One viewer of a console."""

    def __init__(self, connect: Callable[[], Awaitable[Pipe]], until: str = "") -> None:
        """:param connect: reaches the console.

        :param until: a text that ends it.
        """
        self._connect = connect
        self._until = until.encode()
        self._seen = b""
        self._done: asyncio.Future[str] | None = None

    async def run(self) -> str:
        """Pass bytes both ways until the end: ``escape``, ``found`` (the text waited for) or ``closed``.

        :raise ConnectFailed: the guest has no console that can be attached to.
        """
        pipe = await self._connect()
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        showing = asyncio.create_task(self._show(pipe), name="console to terminal")
        typing = self._type(pipe)
        try:
            return await self._done
        finally:
            typing()
            showing.cancel()
            await asyncio.wait({showing})
            pipe.abort()

    def _finish(self, how: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(how)

    async def _show(self, pipe: Pipe) -> None:
        try:
            while chunk := await pipe.read():
                write_all(sys.stdout.fileno(), chunk)
                if self._found(chunk):
                    self._finish("found")
                    return
        except OSError:
            pass
        self._finish("closed")

    def _found(self, chunk: bytes) -> bool:
        if not self._until:
            return False
        self._seen += chunk
        if self._until in self._seen:
            return True
        self._seen = self._seen[-len(self._until) :]
        return False

    def _type(self, pipe: Pipe) -> Callable[[], None]:
        """Have what is typed sent; returns what stops that."""
        handle = sys.stdin.fileno()
        loop = asyncio.get_running_loop()
        interactive = os.isatty(handle)

        def on_input() -> None:
            typed = os.read(handle, _CHUNK)
            if not typed:
                # The end of a pipe: what the guest says is still shown.
                loop.remove_reader(handle)
                return
            text, escape, _ = typed.partition(ESCAPE) if interactive else (typed, b"", b"")
            pipe.send(text)
            if escape:
                self._finish("escape")

        try:
            loop.add_reader(handle, on_input)
        except PermissionError:
            # A regular file or /dev/null, which epoll refuses: it never blocks, so all of it at once.
            while typed := os.read(handle, _CHUNK):
                pipe.send(typed)
            return lambda: None
        return lambda: _ignore(loop.remove_reader(handle))


def _ignore(_: object) -> None:
    return None


def write_all(handle: int, data: bytes) -> None:
    """Everything, also to a terminal in non-blocking mode."""
    while data:
        try:
            data = data[os.write(handle, data) :]
        except BlockingIOError:
            os.set_blocking(handle, True)
