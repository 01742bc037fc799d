"""The console's fan-out, with a guest that is one end of a unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_launcher import console as module
from qvirt_launcher.console import KEPT, Console, Log
from qvirt_launcher.ring import Ring

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
DEADLINE = 20.0


class Line:
    """A console whose guest is played by the test."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "console.sock")
        self.serial = str(directory / "serial0.sock")
        self.log = directory / "console.log"
        self.console = Console(self.path, Log(str(self.log)))
        self.viewers: list[asyncio.StreamWriter] = []
        self._guest: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()

    async def start(self) -> asyncio.Server:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._guest.set_result((reader, writer))

        await self.console.listen()
        return await asyncio.start_unix_server(accept, self.serial)

    async def guest(self) -> Stream:
        """The guest's end, connected."""
        await self.console.attach(self.serial)
        return await self._guest

    async def view(self) -> Stream:
        """A new viewer."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        self.viewers.append(writer)
        return reader, writer


@pytest.fixture
async def line(short_dir: Path) -> AsyncIterator[Line]:
    one = Line(short_dir)
    server = await one.start()
    yield one
    server.close()
    await one.console.aclose()
    for writer in one.viewers:
        writer.close()
        await writer.wait_closed()
    if one._guest.done():
        one._guest.result()[1].close()
    assert not os.path.exists(one.path)


async def read(reader: asyncio.StreamReader, count: int) -> bytes:
    async with asyncio.timeout(DEADLINE):
        return await reader.readexactly(count)


async def test_everybody_sees_and_everybody_may_type(line: Line) -> None:
    typed, guest = await line.guest()
    one, one_types = await line.view()
    two, two_types = await line.view()
    guest.write(b"login: ")
    assert await read(one, 7) == await read(two, 7) == b"login: "
    one_types.write(b"ro")
    assert await read(typed, 2) == b"ro"
    two_types.write(b"ot\n")
    assert await read(typed, 3) == b"ot\n"


async def test_who_comes_late_sees_what_was_said(line: Line) -> None:
    _, guest = await line.guest()
    early, _ = await line.view()
    guest.write(b"panic\n")
    await read(early, 6)
    late, _ = await line.view()
    assert await read(late, 6) == b"panic\n"


async def test_a_viewer_may_be_there_before_the_guest(line: Line) -> None:
    reader, writer = await line.view()
    writer.write(b"lost")
    await writer.drain()
    _, guest = await line.guest()
    guest.write(b"hello")
    assert await read(reader, 5) == b"hello"


async def test_a_viewer_who_does_not_read_is_dropped_and_the_guest_goes_on(line: Line) -> None:
    _, guest = await line.guest()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.setblocking(False)
        await asyncio.get_running_loop().sock_connect(deaf, line.path)
        reader, _ = await line.view()
        viewers = line.console._viewers
        total = 0
        async with asyncio.timeout(DEADLINE):
            while len(viewers) < 2:
                await asyncio.sleep(0.01)
            while len(viewers) == 2 and total < 8 << 20:
                guest.write(b"x" * 4096)
                total += len(await reader.readexactly(4096))
        assert len(viewers) == 1
        assert total < 8 << 20


async def test_a_viewer_who_only_ends_its_input_goes_on_looking(line: Line) -> None:
    _, guest = await line.guest()
    reader, writer = await line.view()
    writer.write_eof()
    guest.write(b"still")
    assert await read(reader, 5) == b"still"


async def test_viewers_who_left_while_nothing_was_said_are_let_go(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_VIEWERS", 2)
    _, guest = await line.guest()
    for _ in range(3):
        _, writer = await line.view()
        writer.write_eof()
        await asyncio.sleep(0.02)
        writer.close()
        await writer.wait_closed()
    reader, _ = await line.view()
    await asyncio.sleep(0.02)
    guest.write(b"x")
    assert await read(reader, 1) == b"x"


async def test_too_many_viewers_are_turned_away(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_VIEWERS", 1)
    _, guest = await line.guest()
    first, _ = await line.view()
    guest.write(b"x")
    await read(first, 1)
    second, _ = await line.view()
    async with asyncio.timeout(DEADLINE):
        assert await second.read() == b""


async def test_last_words_are_seen(line: Line) -> None:
    _, guest = await line.guest()
    reader, _ = await line.view()
    guest.write(b"x")
    await read(reader, 1)
    guest.write(b"Power down.")
    guest.close()
    await line.console.aclose()
    async with asyncio.timeout(DEADLINE):
        assert await reader.read() == b"Power down."
    assert line.log.read_bytes() == b"xPower down."


async def test_no_serial_socket_is_said(line: Line) -> None:
    with pytest.raises(FileNotFoundError):
        await line.console.attach(line.serial + ".none")


def test_a_log_has_one_predecessor_and_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_LIMIT", 10)
    log = Log(str(tmp_path / "log"))
    for word in (b"one two ", b"three ", b"four", b"five"):
        log.write(word)
    log.close()
    assert (tmp_path / "log").read_bytes() == b"five"
    assert (tmp_path / "log.1").read_bytes() == b"three four"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_log_that_cannot_be_written_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log(str(tmp_path / "no" / "log"))
    log.write(b"x")
    log.write(b"x")
    assert len(caplog.records) == 1


def test_a_log_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "log").symlink_to(tmp_path / "target")
    log = Log(str(tmp_path / "log"))
    log.write(b"x")
    assert (tmp_path / "target").read_bytes() == b""


@given(st.lists(st.binary(min_size=1, max_size=30)), st.integers(1, 50))
def test_a_ring_keeps_the_end(chunks: list[bytes], size: int) -> None:
    ring = Ring(size)
    for chunk in chunks:
        ring.add(chunk)
    assert ring.content() == b"".join(chunks)[-size:]
    assert sum(map(len, ring._chunks)) < size + 30


def test_what_is_kept_fits_a_terminals_scrollback() -> None:
    assert KEPT == 64 * 1024
