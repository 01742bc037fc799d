"""The server against good clients, bad clients, and QEMU's own tools."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qemu.qmp import EventListener, ExecuteError, QMPClient

from qvirt_qmp.client import Monitor, connect_unix
from qvirt_qmp.errors import CommandFailed, ListenFailed, QmpError, Refused
from qvirt_qmp.server import Call, Limits, Server

VERSION = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": "test"}


class Stage:
    """A handler whose commands do what the tests need."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.kept: list[int] = []
        self.gate = asyncio.Event()

    async def __call__(self, call: Call) -> object:
        self.calls.append(call.command)
        match call.command:
            case "echo":
                return call.arguments
            case "nothing":
                return None
            case "who":
                return str(call.client), call.client.grade, call.client.uid, call.client.pid
            case "wait":
                await self.gate.wait()
                return "waited"
            case "files":
                return [os.readlink(f"/proc/self/fd/{fd}") for fd in call.fds]
            case "keep":
                self.kept = call.take_fds()
                return len(self.kept)
            case "big":
                return "x" * 1_000_000
            case "refuse":
                raise Refused("refuse", "not today")
            case "odd":
                return object()
            case "bug":
                raise ZeroDivisionError("secret detail")
        raise CommandFailed(call.command, "CommandNotFound", f"no command {call.command}")


@asynccontextmanager
async def serving(
    stage: Stage, *, max_clients: int = 64, limits: Limits | None = None
) -> AsyncIterator[Server]:
    server = Server(stage, greeting=VERSION, max_clients=max_clients, limits=limits)
    try:
        yield server
    finally:
        stage.gate.set()
        async with asyncio.timeout(5):
            await server.aclose(deadline=1)


class Raw:
    """A client that says exactly what it is told."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._buffer = b""

    @classmethod
    async def join(cls, server: Server, *, negotiate: bool = True, grade: str = "admin") -> Raw:
        ours, theirs = socket.socketpair()
        await server.adopt(theirs, grade=grade, name="pair")  # type: ignore[arg-type]
        raw = cls(ours)
        assert await raw.line() == {"QMP": {"version": VERSION, "capabilities": []}}
        if negotiate:
            assert await raw.ask({"execute": "qmp_capabilities"}) == {"return": {}}
        return raw

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def line(self) -> object:
        """The next line; None: the server hung up."""
        async with asyncio.timeout(5):
            while b"\n" not in self._buffer:
                data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 20)
                if not data:
                    return None
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    async def ask(self, message: object) -> object:
        await self.say(json.dumps(message).encode())
        return await self.line()

    def close(self) -> None:
        self.sock.close()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.001)


# The dialect


async def test_negotiation_is_enforced() -> None:
    async with serving(Stage()) as server:
        raw = await Raw.join(server, negotiate=False)
        refused = await raw.ask({"execute": "nothing", "id": 1})
        assert refused == {
            "error": {
                "class": "CommandNotFound",
                "desc": "negotiate first: execute 'qmp_capabilities'",
            },
            "id": 1,
        }
        enable = {"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}
        assert "error" in await raw.ask(enable)  # type: ignore[operator]
        assert await raw.ask({"execute": "qmp_capabilities"}) == {"return": {}}
        assert await raw.ask({"execute": "nothing"}) == {"return": {}}
        assert "error" in await raw.ask({"execute": "qmp_capabilities"})  # type: ignore[operator]
        raw.close()


@pytest.mark.parametrize(
    "id", ["null", "0", "-1.50", "123456789012345678901234567890", '""', '"é"', "[1, {}]", "true"]
)
async def test_any_id_is_echoed_as_it_was_written(id: str) -> None:
    async with serving(Stage()) as server:
        raw = await Raw.join(server)
        for command in ("nothing", "bug", "missing"):
            await raw.say(f'{{"execute": "{command}", "id": {id}}}'.encode())
            reply = await raw.line()
            assert isinstance(reply, dict)
            assert reply["id"] == json.loads(id)
        assert await raw.ask({"execute": "nothing"}) == {"return": {}}
        raw.close()


@pytest.mark.parametrize(
    ("command", "error_class", "description"),
    [
        ("missing", "CommandNotFound", "no command missing"),
        ("refuse", "GenericError", "refuse: refused: not today"),
        ("bug", "GenericError", "internal error in bug (ZeroDivisionError): see the log"),
        ("odd", "GenericError", "internal error in odd (TypeError): see the log"),
    ],
)
async def test_failures_become_qmp_errors(command: str, error_class: str, description: str) -> None:
    async with serving(Stage()) as server:
        raw = await Raw.join(server)
        expected = {"error": {"class": error_class, "desc": description}, "id": "a"}
        assert await raw.ask({"execute": command, "id": "a"}) == expected
        raw.close()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"{]", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b'"a"', "not a JSON object"),
        (b"GET\n", "not a JSON object"),
        (b'{"execute": "a\xc3("}', "not a JSON object"),
        (b'{"execute": "\\ud800"}', "not a JSON object"),
        (b'{"execute": "nothing", "arguments": {"a": NaN}}', "not a JSON object"),
        (b'{"execute": "nothing", "arguments": {"a": 1e999}}', "not a JSON object"),
        (b'{"execute": "nothing}\n', "a string is not closed"),
        (b"[" * 400 + b"]" * 400, "nested deeper than 256"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "longer than 1048576 bytes"),
        (b"{}", "member 'execute'"),
        (b'{"execute": ["nothing"]}', "member 'execute'"),
        (b'{"execute": "nothing", "arguments": []}', "member 'arguments'"),
        (b'{"execute": "nothing", "oob": true}', "unexpected member 'oob'"),
        (b'{"exec-oob": "nothing"}', "out-of-band"),
    ],
)
async def test_what_is_no_command_is_said_to_be_none_and_the_session_goes_on(
    said: bytes, why: str
) -> None:
    async with serving(Stage()) as server:
        raw = await Raw.join(server)
        await raw.say(said)
        reply = await raw.line()
        assert isinstance(reply, dict)
        assert why in reply["error"]["desc"]
        assert await raw.ask({"execute": "echo", "arguments": {"a": 1}}) == {"return": {"a": 1}}
        raw.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.binary(max_size=80) | st.sampled_from([b'{"execute":"echo"}', b"{", b'"']), max_size=6
    )
)
def test_no_junk_breaks_a_session_or_another_client(junk: list[bytes]) -> None:
    async def run() -> None:
        async with serving(Stage()) as server:
            good, bad = await Raw.join(server), await Raw.join(server, negotiate=False)
            for piece in junk:
                await bad.say(piece)
            await bad.say(b'\xff{"execute": "qmp_capabilities", "id": "end"}')
            while (line := await bad.line()) and line.get("id") != "end":  # type: ignore[attr-defined]
                pass
            assert line
            assert await good.ask({"execute": "nothing"}) == {"return": {}}
            good.close()
            bad.close()

    asyncio.run(run())


async def test_commands_of_one_client_run_in_order_those_of_two_at_once() -> None:
    stage = Stage()
    async with serving(stage) as server:
        slow, quick = await Raw.join(server), await Raw.join(server)
        await slow.say(b'{"execute": "wait"}{"execute": "echo"}')
        await until(lambda: stage.calls == ["wait"])
        assert await quick.ask({"execute": "nothing"}) == {"return": {}}
        assert stage.calls == ["wait", "nothing"]
        stage.gate.set()
        assert await slow.line() == {"return": "waited"}
        assert await slow.line() == {"return": {}}
        slow.close()
        quick.close()


async def test_events_reach_those_who_negotiated_and_nobody_else() -> None:
    async with serving(Stage()) as server:
        in_session, not_yet = await Raw.join(server), await Raw.join(server, negotiate=False)
        stamp = {"seconds": 1, "microseconds": 2}
        server.broadcast("STOP", None, stamp)
        server.broadcast("VM_STATUS", {"phase": "Running"})
        assert await in_session.line() == {"event": "STOP", "timestamp": stamp}
        event = await in_session.line()
        assert isinstance(event, dict)
        assert event["data"] == {"phase": "Running"}
        assert event["timestamp"]["seconds"] > 1_700_000_000
        assert await not_yet.ask({"execute": "qmp_capabilities"}) == {"return": {}}
        in_session.close()
        not_yet.close()


# Who comes, and how many


async def test_the_kernel_says_who_the_client_is(tmp_path: Path) -> None:
    async with serving(Stage()) as server:
        await server.listen(str(tmp_path / "read.sock"), grade="read")
        await server.listen(str(tmp_path / "b.sock"), grade="operate", name="door", mode=0o660)
        assert stat.S_IMODE((tmp_path / "read.sock").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "b.sock").stat().st_mode) == 0o660
        first = await connect_unix(str(tmp_path / "read.sock"))
        second = await connect_unix(str(tmp_path / "b.sock"))
        me = [os.getuid(), os.getpid()]
        assert await first.execute("who") == ["read.sock#1", "read", *me]
        assert await second.execute("who") == ["door#2", "operate", *me]
        assert [client.listener for client in server.clients] == ["read.sock", "door"]
        await first.aclose()
        await second.aclose()
    assert list(tmp_path.iterdir()) == []


async def test_fifty_clients_come_and_go_and_leave_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with serving(Stage()) as server:
        await server.listen(path, grade="read")
        before = open_fds()
        for _ in range(3):
            monitors = await asyncio.gather(*(connect_unix(path) for _ in range(50)))
            answers = await asyncio.gather(*(m.execute("echo", {"a": 1}) for m in monitors))
            assert answers == [{"a": 1}] * 50
            server.broadcast("X", None)
            await asyncio.gather(*(m.aclose() for m in monitors))
        for _ in range(50):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
        await until(lambda: server.clients == ())
        assert open_fds() == before


async def test_one_client_too_many_is_told_so_and_room_comes_back() -> None:
    async with serving(Stage(), max_clients=2) as server:
        first, second = await Raw.join(server), await Raw.join(server)
        ours, theirs = socket.socketpair()
        await server.adopt(theirs, grade="read", name="pair")
        third = Raw(ours)
        assert "too many clients" in str(await third.line())
        assert await third.line() is None
        first.close()
        await until(lambda: len(server.clients) == 1)
        again = await Raw.join(server)
        for raw in (second, third, again):
            raw.close()


async def test_a_client_that_does_not_negotiate_is_cut_off() -> None:
    async with serving(Stage(), limits=Limits(negotiation=0.25)) as server:
        silent = await Raw.join(server, negotiate=False)
        assert await silent.line() is None
        silent.close()
        fine = await Raw.join(server)
        await asyncio.sleep(0.3)
        assert await fine.ask({"execute": "nothing"}) == {"return": {}}
        fine.close()


# Clients that do not read, do not wait, or ask for too much


async def test_a_client_that_does_not_read_events_is_cut_off() -> None:
    async with serving(Stage(), limits=Limits(unsent=500_000)) as server:
        deaf, good = await Raw.join(server), await Raw.join(server)
        for _ in range(20):
            server.broadcast("BIG", {"data": "x" * 50_000})
            await good.line()
        await until(lambda: len(server.clients) == 1)
        assert await good.ask({"execute": "nothing"}) == {"return": {}}
        deaf.close()
        good.close()


async def test_a_client_that_does_not_read_replies_gets_no_more_commands_carried_out() -> None:
    stage = Stage()
    async with serving(stage, limits=Limits(unsent=4_000_000, stall=0.1)) as server:
        deaf = await Raw.join(server)
        await deaf.say(b'{"execute": "big"}' * 100)
        await until(lambda: server.clients == ())
        assert len(stage.calls) < 10
        deaf.close()


async def test_a_client_that_reads_late_but_reads_gets_everything() -> None:
    stage = Stage()
    async with serving(stage, limits=Limits(unsent=4_000_000)) as server:
        late = await Raw.join(server)
        await late.say(b'{"execute": "big"}' * 20)
        await until(lambda: len(stage.calls) >= 3)
        await asyncio.sleep(0.02)
        for _ in range(20):
            reply = await late.line()
            assert isinstance(reply, dict)
            assert len(reply["return"]) == 1_000_000
        late.close()


async def test_a_flood_of_commands_is_read_no_faster_than_it_is_carried_out() -> None:
    stage = Stage()
    async with serving(stage) as server:
        flood = await Raw.join(server)
        await flood.say(b'{"execute": "wait"}')
        line = b'{"execute": "echo", "arguments": {"a": "' + b"x" * 50_000 + b'"}}'
        sending = asyncio.create_task(flood.say(line * 200))
        await until(lambda: stage.calls == ["wait"])
        await asyncio.sleep(0.05)
        assert not sending.done()
        stage.gate.set()
        for _ in range(201):
            assert "return" in await flood.line()  # type: ignore[operator]
        await sending
        flood.close()


async def test_what_was_sent_before_hanging_up_is_carried_out() -> None:
    stage = Stage()
    async with serving(stage) as server:
        half = await Raw.join(server)
        await half.say(b'{"execute": "echo"}{"execute": "nothing"}')
        half.sock.shutdown(socket.SHUT_WR)
        assert await half.line() == {"return": {}}
        assert await half.line() == {"return": {}}
        assert await half.line() is None
        half.close()
        gone = await Raw.join(server)
        await gone.say(b'{"execute": "big"}{"execute": "keep"}')
        gone.close()
        await until(lambda: server.clients == ())
        assert stage.calls == ["echo", "nothing", "big", "keep"]


async def test_a_command_that_never_ends_goes_soon_after_its_client() -> None:
    stage = Stage()
    async with serving(stage, limits=Limits(linger=0.02)) as server:
        raw = await Raw.join(server)
        await raw.say(b'{"execute": "wait"}')
        raw.close()
        await until(lambda: server.clients == ())


# Descriptors


async def test_descriptors_reach_their_command_and_are_closed_after_it() -> None:
    stage = Stage()
    async with serving(stage) as server:
        ours, theirs = socket.socketpair()
        await server.adopt(theirs, grade="admin", name="pair")
        monitor = await Monitor.connect(ours, name="server")
        before = open_fds()
        with open("/dev/null") as null, open("/dev/zero") as zero:
            fds = [null.fileno(), zero.fileno()]
            answers = await asyncio.gather(
                monitor.execute("files"),
                monitor.execute("files", fds=fds),
                monitor.execute("files", {"a": "x" * 300_000}, fds=fds[:1]),
                monitor.execute("files"),
                monitor.execute("nothing", fds=fds),
                monitor.execute("files"),
            )
            kept = await monitor.execute("keep", fds=fds)
        assert list(answers) == [[], ["/dev/null", "/dev/zero"], ["/dev/null"], [], {}, []]
        assert kept == 2
        assert open_fds() == before + 2
        for fd in stage.kept:
            assert os.get_inheritable(fd) is False
            os.close(fd)
        await monitor.aclose()


async def test_descriptors_before_between_and_inside_pipelined_commands() -> None:
    """One read may hold commands from before the piece that the descriptors came with."""
    async with serving(Stage()) as server:
        raw = await Raw.join(server)
        with open("/dev/null") as null:
            fds = [null.fileno()]
            # As QMPClient.send_fd_scm does it: a blank, then the command.
            raw.sock.send(b'{"execute": "files", "id": 1}')
            socket.send_fds(raw.sock, [b" "], fds)
            raw.sock.send(b'{"execute": "files", "id": 2}')
            # With the command itself, behind another.
            raw.sock.send(b'{"execute": "files", "id": 3}')
            socket.send_fds(raw.sock, [b'{"execute": "files", "id": 4}\n'], fds)
            # With the first bytes of a command, the rest of which comes with the next one.
            raw.sock.send(b'{"execute": "files", "id": 5}')
            socket.send_fds(raw.sock, [b'{"execute": "fi'], fds)
            raw.sock.send(b'les", "id": 6}{"execute": "files", "id": 7}')
        got = [await raw.line() for _ in range(7)]
        assert got == [
            {"return": ["/dev/null"] if id in (2, 4, 6) else [], "id": id} for id in range(1, 8)
        ]
        raw.close()


async def test_qemus_client_can_send_descriptors() -> None:
    async with serving(Stage()) as server:
        ours, theirs = socket.socketpair()
        await server.adopt(theirs, grade="admin", name="pair")
        client = QMPClient()
        await client.connect(ours)
        with open("/dev/null") as null, open("/dev/zero") as zero:
            client.send_fd_scm(null.fileno())
            client.send_fd_scm(zero.fileno())
            assert await client.execute("files") == ["/dev/null", "/dev/zero"]
            assert await client.execute("files") == []
        await client.disconnect()


async def test_a_reading_door_takes_no_descriptors() -> None:
    async with serving(Stage()) as server:
        raw = await Raw.join(server, grade="read")
        with open("/dev/null") as null:
            before = open_fds()
            socket.send_fds(raw.sock, [b'{"execute": "files"}'], [null.fileno()])
            assert await raw.line() == {"return": []}
            assert open_fds() == before
        raw.close()


@pytest.mark.parametrize("at_once", [True, False])
async def test_too_many_descriptors_end_the_session_and_leak_nothing(at_once: bool) -> None:
    async with serving(Stage(), limits=Limits(fds=4)) as server:
        raw = await Raw.join(server)
        with open("/dev/null") as null:
            before = open_fds()
            for _ in range(1 if at_once else 5):
                socket.send_fds(raw.sock, [b" "], [null.fileno()] * (50 if at_once else 1))
            assert await raw.line() is None
            await until(lambda: server.clients == ())
            assert open_fds() == before - 1  # the server's end of the pair
        raw.close()


async def test_descriptors_of_dropped_commands_are_closed() -> None:
    async with serving(Stage(), limits=Limits(linger=0.01, message=2000)) as server:
        before = open_fds()
        raw = await Raw.join(server)
        with open("/dev/null") as null:
            fds = [null.fileno()]
            socket.send_fds(raw.sock, [b'{"a": "' + b"x" * 3000], fds)
            assert "longer than 2000" in str(await raw.line())
            await raw.say(b'"}')
            assert await raw.ask({"execute": "files"}) == {"return": []}
            await raw.say(b'{"execute": "wait"}')
            for _ in range(3):
                socket.send_fds(raw.sock, [b'{"execute": "files"}'], fds)
            socket.send_fds(raw.sock, [b'{"execute": "fi'], fds)
        raw.close()
        await until(lambda: server.clients == ())
        assert open_fds() == before


# Sockets


async def test_a_path_longer_than_sun_path(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    path = str(directory / ("s" * 70))
    async with serving(Stage()) as server:
        await server.listen(path, grade="read", mode=0o666)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
        monitor = await connect_unix(path)
        assert await monitor.execute("nothing") == {}
        await monitor.aclose()
        other = Server(Stage(), greeting=VERSION)
        with pytest.raises(ListenFailed, match="another process listens"):
            await other.listen(path, grade="read")
    assert list(directory.iterdir()) == []


async def test_a_stale_socket_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    stale, file, live = tmp_path / "stale", tmp_path / "file", tmp_path / "live"
    file.write_text("precious")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
        dead.listen()
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(live))
        alive.listen(0)
        # Fill the backlog: a listener that is busy is no stale one.
        full = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for sock in full:
            sock.setblocking(False)
            sock.connect_ex(str(live))
        async with serving(Stage()) as server:
            await server.listen(str(stale), grade="read")
            monitor = await connect_unix(str(stale))
            await monitor.aclose()
            with pytest.raises(ListenFailed, match="is not a socket"):
                await server.listen(str(file), grade="read")
            with pytest.raises(ListenFailed, match="another process listens"):
                await server.listen(str(live), grade="read")
            with pytest.raises(ListenFailed, match="No such file or directory"):
                await server.listen(str(tmp_path / "no" / "such"), grade="read")
        for sock in full:
            sock.close()
    assert file.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "live"]


async def test_a_path_that_was_taken_over_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(Stage()) as server:
        await server.listen(str(path), grade="read")
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


async def test_a_client_waits_for_a_full_backlog(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with pytest.raises(QmpError, match=r"no greeting within 0\.1 s"):
            await connect_unix(path, deadline=0.1)


# The end


async def test_closing_lets_answers_out_and_cuts_off_what_does_not_end(tmp_path: Path) -> None:
    stage = Stage()
    server = Server(stage, greeting=VERSION)
    await server.listen(str(tmp_path / "s"), grade="read")
    prompt, stuck, idle = [await Raw.join(server) for _ in range(3)]
    await prompt.say(b'{"execute": "big"}{"execute": "echo"}')
    await stuck.say(b'{"execute": "wait"}')
    await until(lambda: "wait" in stage.calls)
    closing = asyncio.create_task(server.aclose(deadline=0.1))
    assert len((await prompt.line())["return"]) == 1_000_000  # type: ignore[index]
    assert await prompt.line() == {"return": {}}
    for raw in (prompt, stuck, idle):
        assert await raw.line() is None
        raw.close()
    await closing
    assert not (tmp_path / "s").exists()
    assert server.clients == ()


# QEMU's own tools


async def test_qemus_client(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with serving(Stage()) as server:
        await server.listen(path, grade="read")
        client = QMPClient("test")
        await client.connect(path)
        assert client.greeting is not None
        with pytest.raises(ExecuteError, match="no command missing"):
            await client.execute("missing")
        listener = EventListener("VM_STATUS")
        with client.listen(listener):
            server.broadcast("OTHER", None)
            server.broadcast("VM_STATUS", {"phase": "Running"})
            assert (await listener.get())["data"] == {"phase": "Running"}
        await client.disconnect()


async def test_qmp_shell(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    shell = Path(sys.executable).with_name("qmp-shell")
    async with serving(Stage()) as server:
        await server.listen(path, grade="read")
        process = await asyncio.create_subprocess_exec(
            str(shell),
            path,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        async with asyncio.timeout(20):
            said, _ = await process.communicate(b"echo a=1 b=two\nmissing\nwho\n")
        text = said.decode()
        assert "Connected to QEMU 7.2.0" in text
        assert '"a": 1' in text
        assert '"b": "two"' in text
        assert "no command missing" in text
        assert "s#1" in text
        assert process.returncode == 0
