"""Client, server and multiplexer with the real QEMU at the end of the line."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from qvirt_qmp import events
from qvirt_qmp.client import Monitor, connect_unix
from qvirt_qmp.errors import (
    CommandFailed,
    CommandTimeout,
    ConnectFailed,
    Disconnected,
    Interrupted,
)
from qvirt_qmp.multiplex import Multiplexer
from qvirt_qmp.recorder import FlightRecorder
from qvirt_qmp.server import Server

pytestmark = pytest.mark.qemu

StartQemu = Callable[..., tuple[subprocess.Popen[bytes], socket.socket]]


@asynccontextmanager
async def shared(
    sock: socket.socket, directory: Path
) -> AsyncIterator[tuple[Monitor, FlightRecorder]]:
    """A QEMU's monitor behind three doors, one a grade: ``read``, ``operate`` and ``admin`` in the directory."""
    monitor = await Monitor.connect(sock, name="qemu")
    recorder = FlightRecorder()
    server: Server | None = None
    multiplexer = Multiplexer(
        monitor,
        recorder,
        broadcast=lambda name, data, stamp: server.broadcast(name, data, stamp) if server else None,
    )
    version = cast("dict[str, object]", monitor.greeting["version"])
    server = Server(multiplexer.forward, greeting=version)
    try:
        await server.listen(str(directory / "read"), grade="read")
        await server.listen(str(directory / "operate"), grade="operate")
        await server.listen(str(directory / "admin"), grade="admin")
        yield monitor, recorder
    finally:
        multiplexer.close()
        await server.aclose(deadline=1)
        await monitor.aclose()


async def test_a_session_from_start_to_quit(start_qemu: StartQemu) -> None:
    process, sock = start_qemu()
    monitor = await Monitor.connect(sock, name="qemu")
    assert await monitor.execute("query-status") == {
        "status": "prelaunch",
        "singlestep": False,
        "running": False,
    }
    await monitor.execute("cont")
    await monitor.execute("stop")
    with pytest.raises(CommandFailed) as caught:
        await monitor.execute("no-such-command")
    assert caught.value.error_class == "CommandNotFound"
    schema = await monitor.execute("query-qmp-schema")
    assert len(cast("list[object]", schema)) > 1000
    assert await monitor.execute("quit") == {}
    await monitor.closed
    # The reason of the end came before the reply to `quit`, and is still here after the end.
    assert [event async for event in monitor.events()] == [
        events.Resume(),
        events.Stop(),
        events.Shutdown(guest=False, reason="host-qmp-quit"),
    ]
    await monitor.aclose()
    assert process.wait(10) == 0


async def test_a_qemu_that_dies_at_once(start_qemu: StartQemu) -> None:
    process, sock = start_qemu("-device", "no-such-device")
    with pytest.raises(ConnectFailed, match="the peer hung up"):
        await Monitor.connect(sock, name="qemu")
    assert process.wait(10) == 1


async def test_a_qemu_that_is_killed_interrupts_its_commands(start_qemu: StartQemu) -> None:
    process, sock = start_qemu()
    monitor = await Monitor.connect(sock, name="qemu")
    process.send_signal(signal.SIGSTOP)
    waiting = asyncio.create_task(monitor.execute("query-status", deadline=30))
    await asyncio.sleep(0)
    process.kill()
    with pytest.raises(Interrupted):
        await waiting
    assert await monitor.closed
    with pytest.raises(Disconnected):
        await monitor.execute("query-status")
    await monitor.aclose()


async def test_a_frozen_qemu_holds_up_nothing(start_qemu: StartQemu) -> None:
    process, sock = start_qemu()
    monitor = await Monitor.connect(sock, name="qemu")
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(CommandTimeout):
        await monitor.execute("query-status", deadline=0.05)
    process.send_signal(signal.SIGCONT)
    # The late reply is dropped; the next command gets its own.
    assert await monitor.execute("query-name") == {}
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(CommandTimeout):
        await monitor.execute("quit", deadline=0.05)
    async with asyncio.timeout(1):
        await monitor.aclose()
    assert monitor.closed.done()


async def test_no_text_of_a_client_harms_the_monitor(start_qemu: StartQemu) -> None:
    """QEMU's parser refuses some texts without saying whose they were; ours refuse all of those before."""
    monitor = await Monitor.connect(start_qemu()[1], name="qemu")
    texts = [chr(point) for point in (*range(0x2FF), 0xD7FF, 0xD800, 0xDFFF, 0xE000, 0xFDCF)]
    texts += [chr(point) for point in (0xFDD0, 0xFDEF, 0xFDF0, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000)]
    texts += [chr(point) for point in (0x1FFFD, 0x1FFFE, 0x10FFFD, 0x10FFFE, 0x10FFFF)]
    deep: object = 1
    for _ in range(250):
        deep = [deep]
    for value in [*texts, "%s%n", 1 << 200, -(1 << 63), 1e308, deep, float("inf"), float("nan")]:
        with pytest.raises(CommandFailed, match=r"'x' is unexpected|can't be sent"):
            await monitor.execute("query-status", {"x": value})
    await monitor.execute("query-status")
    await monitor.aclose()


async def test_descriptors_reach_qemu(start_qemu: StartQemu) -> None:
    monitor = await Monitor.connect(start_qemu()[1], name="qemu")
    with open("/dev/null") as null:
        await monitor.execute("add-fd", {"fdset-id": 7}, fds=[null.fileno()])
        with pytest.raises(CommandFailed, match="No file descriptor supplied"):
            await monitor.execute("add-fd", {"fdset-id": 8})
    sets = await monitor.execute("query-fdsets")
    assert [each["fdset-id"] for each in cast("list[dict[str, object]]", sets)] == [7]
    await monitor.aclose()


async def test_many_clients_share_one_monitor(start_qemu: StartQemu, tmp_path: Path) -> None:
    async with shared(start_qemu()[1], tmp_path):
        clients = await asyncio.gather(*(connect_unix(str(tmp_path / "read")) for _ in range(20)))
        operator = await connect_unix(str(tmp_path / "operate"))
        names = ["query-status", "query-name", "query-version", "query-uuid"]
        answers = await asyncio.gather(
            *(each.execute(name) for each in clients for name in names * 5)
        )
        first = answers[: len(names)]
        assert all(
            list(answers[at : at + len(names)]) == list(first)
            for at in range(0, len(answers), len(names))
        )
        await operator.execute("cont")
        for each in clients:
            assert await anext(each.events()) == events.Resume()
        await asyncio.gather(*(each.aclose() for each in (*clients, operator)))


async def test_grades_are_kept_and_everything_is_recorded(
    start_qemu: StartQemu, tmp_path: Path
) -> None:
    process, sock = start_qemu("-machine", "q35")
    async with shared(sock, tmp_path) as (monitor, recorder):
        read = await connect_unix(str(tmp_path / "read"))
        operate = await connect_unix(str(tmp_path / "operate"))
        admin = await connect_unix(str(tmp_path / "admin"))
        for client in (read, operate, admin):
            with pytest.raises(CommandFailed, match=r"quit: refused: .* use vm-stop"):
                await client.execute("quit")
            with pytest.raises(CommandFailed, match="refused"):
                await client.execute("human-monitor-command", {"command-line": "info status"})
        with pytest.raises(CommandFailed, match="needs the grade 'operate'"):
            await read.execute("cont")
        await operate.execute("cont")
        with pytest.raises(CommandFailed, match="needs the grade 'admin'"):
            await operate.execute("device_add", {"driver": "virtio-rng-pci", "id": "r"})
        await admin.execute("object-add", {"qom-type": "rng-builtin", "id": "rng"})
        with pytest.raises(CommandFailed, match="does not support hotplugging"):
            await admin.execute("device_add", {"driver": "virtio-rng-pci", "rng": "rng", "id": "r"})
        with pytest.raises(CommandFailed) as caught:
            await admin.execute("no-such-command")
        assert caught.value.error_class == "CommandNotFound"
        await monitor.execute("query-status")
        said = [(each.kind, each.name, each.origin) for each in recorder.entries()]
        assert ("refused", "quit", "read#1") in said
        assert ("command", "cont", "operate#2") in said
        assert ("event", "RESUME", "") in said
        assert ("reply", "cont", "operate#2") in said
        assert ("error", "no-such-command", "admin#3") in said
        assert said[-1] == ("reply", "query-status", "launcher")
        assert not any("info status" in each.body for each in recorder.entries())
        for client in (read, operate, admin):
            await client.aclose()
        assert process.poll() is None


async def test_clients_of_a_frozen_qemu_are_answered_in_time(
    start_qemu: StartQemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvirt_qmp.deadlines.DEFAULT", 0.1)
    process, sock = start_qemu()
    async with shared(sock, tmp_path) as (monitor, _):
        clients = await asyncio.gather(*(connect_unix(str(tmp_path / "read")) for _ in range(12)))
        process.send_signal(signal.SIGSTOP)
        answers = await asyncio.gather(
            *(each.execute("query-status", deadline=5) for each in clients), return_exceptions=True
        )
        assert {type(each) for each in answers} == {CommandFailed}
        assert "no answer within 0.1 s" in str(answers[0])
        process.send_signal(signal.SIGCONT)
        monkeypatch.undo()
        assert await clients[0].execute("query-name", deadline=5) == {}
        await asyncio.gather(*(each.aclose() for each in clients))
        process.kill()
        await monitor.closed


async def test_qmp_shell_through_the_reading_door(start_qemu: StartQemu, tmp_path: Path) -> None:
    async with shared(start_qemu()[1], tmp_path):
        shell = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("qmp-shell")),
            str(tmp_path / "read"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        async with asyncio.timeout(20):
            said, _ = await shell.communicate(b"query-status\nquit\nquery-name\n")
        text = said.decode()
        assert "prelaunch" in text
        assert "use vm-stop" in text
        assert shell.returncode == 0
