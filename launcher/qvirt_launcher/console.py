"""The guest's serial console for many viewers: QEMU's socket takes one client, which is this module.

The last 64 KiB are kept and shown to whoever attaches, so that a viewer who comes late sees why a boot failed. All viewers
see everything and all may type (KubeVirt lets a new viewer throw out the old one; nobody has to be thrown out here). A viewer
who does not read is dropped, never waited for: the guest must not hang because a terminal was suspended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
from typing import BinaryIO, Final, Protocol

from qvirt_launcher.ring import Ring
from qvirt_qmp import sockets

_log = logging.getLogger(__name__)

#: What is kept of the guest's output, and what a viewer may leave unread, in bytes.
KEPT: Final = 64 * 1024
_UNREAD: Final = 256 * 1024
#: A log file is moved to ``<name>.1`` when it has reached this size.
LOG_LIMIT: Final = 8 << 20
_CHUNK: Final = 4096
_BACKLOG: Final = 16
_MOST_VIEWERS: Final = 32
_ATTACH_SECONDS: Final = 5.0
#: For the guest's last words, and for viewers to take them.
_GOODBYE_SECONDS: Final = 1.0


class Sink(Protocol):
    """Takes all of the guest's output, at once."""

    def write(self, chunk: bytes) -> None: ...
    def close(self) -> None: ...


class Log:
    """A file with the guest's output, with one predecessor, so that a talkative guest can't fill the disk."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def write(self, chunk: bytes) -> None:
        """Append. The first failure is logged and ends the log."""
        if not self._path:
            return
        try:
            file = self._file or self._open()
            if file.tell() + len(chunk) > LOG_LIMIT:
                self.close()
                os.replace(self._path, f"{self._path}.1")
                file = self._open()
            file.write(chunk)
        except OSError as error:
            _log.warning("the console's log %s ends here: %s", self._path, error.strerror)
            self.close()
            self._path = ""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self._path, flags, 0o600)
        self._file = open(handle, "ab", buffering=0)  # noqa: SIM115  closed by `close`
        return self._file


class Console:
    """A door for viewers, from the launcher's start on; the guest's side comes with `attach`.

    :param sinks: get everything as well; closed by `aclose`.
    """

    def __init__(self, path: str, *sinks: Sink) -> None:
        self._path = path
        self._sinks = sinks
        self._ring = Ring(KEPT)
        self._viewers: set[asyncio.StreamWriter] = set()
        self._guest: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None
        self._bound: sockets.BoundPath | None = None
        self._pump: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    async def listen(self) -> None:
        """Open the door, mode 0600.

        :raise OSError: the socket can't be made.
        """
        sock, self._bound = sockets.listen_path(self._path, 0o600, _BACKLOG)
        self._server = await asyncio.start_unix_server(self._view, sock=sock)

    async def attach(self, serial: str) -> None:
        """Connect to QEMU's serial socket and pass on what comes, until it ends.

        :raise OSError: it can't be connected to. TimeoutError is one.
        """
        async with asyncio.timeout(_ATTACH_SECONDS):
            sock = await sockets.connect_path(serial)
            reader, self._guest = await asyncio.open_unix_connection(sock=sock)
        self._pump = asyncio.create_task(self._pass_on(reader), name="console")

    async def aclose(self) -> None:
        """Show viewers what is left, then close everything."""
        if self._bound is not None:
            self._bound.unlink()
        if self._server is not None:
            self._server.close()
        if self._pump is not None:
            # QEMU has ended, so the pump ends too, with the guest's last words.
            _, late = await asyncio.wait({self._pump}, timeout=_GOODBYE_SECONDS)
            for task in late:
                task.cancel()
                await asyncio.wait({task})
        for viewer in tuple(self._viewers):
            viewer.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GOODBYE_SECONDS)
        for writer in (*self._viewers, *([self._guest] if self._guest else [])):
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for sink in self._sinks:
            sink.close()

    async def _pass_on(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                self._ring.add(chunk)
                for sink in self._sinks:
                    sink.write(chunk)
                for viewer in tuple(self._viewers):
                    self._show(viewer, chunk)

    def _show(self, viewer: asyncio.StreamWriter, chunk: bytes) -> None:
        if viewer.transport.get_write_buffer_size() > _UNREAD:
            _log.info("a viewer of the console does not read and is dropped")
            self._viewers.discard(viewer)
            viewer.transport.abort()
            return
        viewer.write(chunk)

    async def _view(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._sweep()
        if len(self._viewers) >= _MOST_VIEWERS:
            writer.transport.abort()
            return
        writer.write(self._ring.content())
        self._viewers.add(writer)
        try:
            while typed := await reader.read(_CHUNK):
                await self._type(typed)
            # A viewer may end only its own half (a terminal at the end of its input) and go on looking.
            if not _has_left(writer):
                await writer.wait_closed()
        except OSError as error:
            _log.debug("a viewer of the console: %s", error)
        finally:
            self._viewers.discard(writer)
            writer.transport.abort()

    def _sweep(self) -> None:
        """Let go of viewers who ended their own half first and left later, while the guest was silent."""
        for viewer in tuple(self._viewers):
            if _has_left(viewer):
                viewer.transport.abort()
                self._viewers.discard(viewer)

    async def _type(self, typed: bytes) -> None:
        """To the guest, as fast as it takes it; what is typed before there is one is lost, as on a real line."""
        if self._guest is not None and not self._guest.is_closing():
            self._guest.write(typed)
            await self._guest.drain()


def _has_left(viewer: asyncio.StreamWriter) -> bool:
    """Whether the other end is closed in both directions."""
    handle = viewer.get_extra_info("socket").fileno()
    if handle < 0:
        return True
    poll = select.poll()
    poll.register(handle, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
