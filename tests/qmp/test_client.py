"""The client against peers on a real socket that behave badly in every way that we could think of."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from qvirt_qmp import events
from qvirt_qmp.client import Monitor, connect_unix
from qvirt_qmp.errors import (
    CommandFailed,
    CommandTimeout,
    ConnectFailed,
    Disconnected,
    Interrupted,
    QmpError,
)
from qvirt_qmp.framer import Framer
from qvirt_qmp.sockets import close_all, receive

GREETING = {"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}


class Peer:
    """The other end, to be told what to say."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._framer = Framer()
        self._read: list[dict[str, object]] = []

    async def say(self, *messages: object) -> None:
        await self.raw(b"".join(json.dumps(each).encode() + b"\r\n" for each in messages))

    async def raw(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def heard(self) -> dict[str, object]:
        """The next command."""
        while not self._read:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
            assert data, "the client hung up"
            self._read += [json.loads(frame) for frame in self._framer.feed(data)]  # type: ignore[arg-type]
        return self._read.pop(0)

    async def negotiate(self) -> None:
        await self.say(GREETING)
        command = await self.heard()
        assert command["execute"] == "qmp_capabilities"
        await self.say({"return": {}})

    async def answer(self, value: object) -> None:
        await self.say({"return": value, "id": (await self.heard())["id"]})


Play = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def session(play: Play) -> AsyncIterator[Monitor]:
    """A monitor connected to a peer that negotiates and then plays its part; the peer must come to its end."""
    ours, theirs = socket.socketpair()
    with theirs:
        peer = Peer(theirs)

        async def part() -> None:
            await peer.negotiate()
            await play(peer)

        playing = asyncio.create_task(part())
        monitor = await Monitor.connect(ours, name="peer", deadline=5)
        try:
            yield monitor
            async with asyncio.timeout(5):
                await playing
        finally:
            playing.cancel()
            await asyncio.wait({playing})
            await monitor.aclose()


async def never(_: Peer) -> None:
    """Says nothing more."""


async def test_a_command_and_its_return() -> None:
    async def play(peer: Peer) -> None:
        command = await peer.heard()
        assert command["execute"] == "query-status"
        assert command["arguments"] == {"a": 1}
        await peer.say({"return": {"running": True}, "id": command["id"]})

    async with session(play) as monitor:
        assert await monitor.execute("query-status", {"a": 1}) == {"running": True}
        assert monitor.greeting["version"] == {"qemu": {"major": 7}}
        assert monitor.version == "7.?.?"


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"{}\r\n",
        b'{"QMP": 3}\r\n',
        b'{"QMP": {"version": {}}}\r\n',
        b"[" * 3000 + b"\r\n",
        b"\xff\xfe\r\n",
        b'{"QMP": {"ver',
        b"",
        b"x" * (11 << 20),
        json.dumps(GREETING).encode() + b"\r\n" + b'{"error": {"class": "x", "desc": "y"}}\r\n',
        json.dumps(GREETING).encode() + b"\r\n" + b"nonsense\r\n",
        json.dumps(GREETING).encode() + b"\r\n",
    ],
    ids=lambda said: said[:20].decode("latin-1"),
)
async def test_a_peer_that_is_no_qmp_server_is_refused(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    peer = Peer(theirs)

    async def part() -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            await peer.raw(said)
        theirs.shutdown(socket.SHUT_WR)

    playing = asyncio.create_task(part())
    with pytest.raises(ConnectFailed, match="peer: can't connect: "):
        await Monitor.connect(ours, name="peer", deadline=10)
    await playing
    theirs.close()
    assert ours.fileno() == -1


async def test_a_silent_peer_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(ConnectFailed, match=r"no greeting within 0\.02 s"):
        await Monitor.connect(ours, name="peer", deadline=0.02)
    assert ours.fileno() == -1


async def test_nobody_at_the_path(tmp_path: Path) -> None:
    with pytest.raises(ConnectFailed, match="no such socket"):
        await connect_unix(str(tmp_path / "none"))
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(left))
    with pytest.raises(ConnectFailed, match="nobody listens"):
        await connect_unix(str(left))


async def test_a_reply_in_single_bytes() -> None:
    async def play(peer: Peer) -> None:
        command = await peer.heard()
        for byte in json.dumps({"id": command["id"], "return": {"a": "é"}}).encode() + b"\n":
            await peer.raw(bytes([byte]))
            await asyncio.sleep(0)

    async with session(play) as monitor:
        assert await monitor.execute("x") == {"a": "é"}


async def test_errors_keep_their_class_and_description() -> None:
    async def play(peer: Peer) -> None:
        command = await peer.heard()
        error = {"class": "DeviceNotFound", "desc": "Device 'x' not found"}
        await peer.say({"error": error, "id": command["id"]})

    async with session(play) as monitor:
        with pytest.raises(CommandFailed, match="device_del: Device 'x' not found") as caught:
            await monitor.execute("device_del", {"id": "x"})
        assert caught.value.error_class == "DeviceNotFound"
        assert caught.value.command == "device_del"


async def test_a_late_reply_is_dropped_and_the_session_goes_on() -> None:
    async def play(peer: Peer) -> None:
        late = await peer.heard()
        following = await peer.heard()
        await peer.say({"return": "late", "id": late["id"]})
        await peer.say({"return": "right", "id": following["id"]})

    async with session(play) as monitor:
        with pytest.raises(CommandTimeout, match=r"x: no answer within 0\.02 s") as caught:
            await monitor.execute("x", deadline=0.02)
        assert caught.value.seconds == 0.02
        assert await monitor.execute("y") == "right"


async def test_a_cancelled_command_spoils_nothing() -> None:
    async def play(peer: Peer) -> None:
        await peer.say({"return": 1, "id": (await peer.heard())["id"]})
        await peer.answer(2)

    async with session(play) as monitor:
        cancelled = asyncio.create_task(monitor.execute("x"))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert await monitor.execute("y") == 2


async def test_replies_with_wrong_ids_are_dropped() -> None:
    async def play(peer: Peer) -> None:
        command = await peer.heard()
        error = {"class": "GenericError", "desc": "JSON parse error"}
        ids: list[object] = ["other", 7, None, [1], {}]
        for id in ids:
            await peer.say({"return": "wrong", "id": id}, {"error": error, "id": id})
        await peer.say({"return": "wrong"}, {"error": error}, {})
        await peer.say({"return": "right", "id": command["id"]})

    async with session(play) as monitor:
        assert await monitor.execute("x") == "right"


@pytest.mark.parametrize(
    "reply", [{}, {"error": 3}, {"error": {"class": "x"}}, {"error": {"desc": 4}}]
)
async def test_a_reply_that_says_neither_yes_nor_no(reply: dict[str, object]) -> None:
    async def play(peer: Peer) -> None:
        await peer.say({**reply, "id": (await peer.heard())["id"]})
        await peer.answer("fine")

    async with session(play) as monitor:
        with pytest.raises(Interrupted, match="x: no answer, its outcome is unknown"):
            await monitor.execute("x")
        assert await monitor.execute("y") == "fine"


@pytest.mark.parametrize(
    "last",
    [
        b"",
        b'{"return": ',
        b"no JSON\n",
        b"[1]\n",
        b"\xff\n",
        b"[" * 5000 + b"]" * 5000 + b"\n",
        b'"' + b"x" * (11 << 20) + b'"\n',
    ],
    ids=["closes", "half a line", "garbage", "array", "bytes", "deep", "huge"],
)
async def test_the_end_of_a_session_interrupts_commands_and_is_told(last: bytes) -> None:
    async def play(peer: Peer) -> None:
        await peer.heard()
        with suppress(OSError):
            await peer.raw(last)
            peer.sock.shutdown(socket.SHUT_RDWR)

    async with session(play) as monitor:
        stream = monitor.events()
        results = await asyncio.gather(
            *(monitor.execute(name, deadline=10) for name in "abc"), return_exceptions=True
        )
        assert [type(result) for result in results] == [Interrupted] * 3
        assert await monitor.closed
        assert monitor.closed.done()
        with pytest.raises(Disconnected, match="peer: not connected: "):
            await monitor.execute("x")
        assert [event async for event in stream] == []
        assert [event async for event in monitor.events()] == []


async def test_events_come_in_order_and_before_the_reply_that_follows_them() -> None:
    async def play(peer: Peer) -> None:
        command = await peer.heard()
        await peer.say(
            {"event": "STOP"},
            {"event": "STRANGE", "data": [1]},
            {"event": 7},
            {"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-qmp-quit"}},
            {"return": {}, "id": command["id"]},
            {"event": "RESUME"},
        )

    async with session(play) as monitor:
        heard: list[object] = []
        monitor.listen(lambda message: heard.append(message["event"]))
        await monitor.execute("quit")
        assert heard[:4] == ["STOP", "STRANGE", 7, "SHUTDOWN"]
        stream = monitor.events()
        assert [await anext(stream) for _ in range(5)] == [
            events.Stop(),
            events.Unknown(name="STRANGE", data=[1]),
            events.Unknown(name="7"),
            events.Shutdown(guest=False, reason="host-qmp-quit"),
            events.Resume(),
        ]


async def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def play(peer: Peer) -> None:
        command = await peer.heard()
        await peer.say({"event": "STOP"}, {"return": 1, "id": command["id"]})

    def fail(_: Mapping[str, object]) -> None:
        raise ValueError("a bug")

    heard: list[object] = []
    async with session(play) as monitor:
        monitor.listen(fail)
        stop = monitor.listen(heard.append)
        assert await monitor.execute("x") == 1
        stop()
    assert heard == [{"event": "STOP"}]
    assert "a listener failed on event STOP" in caplog.text


async def test_a_flood_of_events_is_held_in_bounds_and_the_end_is_not_lost() -> None:
    async def play(peer: Peer) -> None:
        await peer.say({"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}})
        for start in range(0, 5000, 500):
            await peer.say(
                *({"event": "RTC_CHANGE", "data": {"offset": start}} for _ in range(500))
            )
        await peer.answer("done")

    async with session(play) as monitor:
        assert await monitor.execute("x") == "done"
        stream = monitor.events()
        assert stream.dropped == 5001 - 1024
        assert await anext(stream) == events.Shutdown(guest=True, reason="guest-shutdown")
        assert await anext(stream) == events.RtcChange(offset=3500)


async def test_closed_can_be_awaited_by_many_and_cancelled_by_one() -> None:
    async def play(peer: Peer) -> None:
        await peer.heard()
        peer.sock.shutdown(socket.SHUT_RDWR)

    async def wait(monitor: Monitor) -> str:
        return await monitor.closed

    async with session(play) as monitor:
        first, second = (asyncio.create_task(wait(monitor)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(Interrupted):
            await monitor.execute("x")
        assert await second == await monitor.closed == "the peer hung up"


async def test_a_peer_that_never_reads_holds_up_nothing() -> None:
    async with session(never) as monitor:
        big = {"data": "x" * 200_000}
        results = await asyncio.gather(
            *(monitor.execute("x", big, deadline=0.02) for _ in range(40)), return_exceptions=True
        )
        assert {type(result) for result in results} == {CommandTimeout}
        async with asyncio.timeout(1):
            await monitor.aclose()
        assert await monitor.closed


async def test_commands_that_nobody_reads_are_bounded() -> None:
    async with session(never) as monitor:
        kinds: list[type[BaseException]] = []
        big = {"data": "x" * 300_000}
        for _ in range(300):
            with pytest.raises(QmpError) as caught:
                await monitor.execute("x", big if not kinds else None, deadline=0)
            kinds.append(caught.type)
        assert kinds[0] is CommandTimeout
        assert kinds[-1] is Disconnected


async def test_closing_interrupts_what_is_under_way() -> None:
    async with session(never) as monitor:
        waiting = asyncio.create_task(monitor.execute("x"))
        await asyncio.sleep(0)
        await monitor.aclose()
        with pytest.raises(Interrupted):
            await waiting
        await monitor.aclose()
        with pytest.raises(Disconnected):
            await monitor.execute("x")


@pytest.mark.parametrize(
    "arguments",
    [
        {"a": "\ufffe"},
        {"a": "\ufdd0"},
        {"a": "\U0010ffff"},
        {"\ud800": 1},
        {"a": [{"b": float("nan")}]},
        {"a": float("inf")},
    ],
)
async def test_what_qemu_cannot_parse_is_not_sent(arguments: dict[str, object]) -> None:
    async with session(lambda peer: peer.answer("clean")) as monitor:
        with pytest.raises(CommandFailed, match="the arguments can't be sent"):
            await monitor.execute("x", arguments)
        assert await monitor.execute("y") == "clean"


async def test_descriptors_travel_with_their_command_and_no_other() -> None:
    got: dict[str, list[str]] = {}

    async def play(peer: Peer) -> None:
        framer = Framer()
        while len(got) < 3:
            data, fds, _ = await receive(peer.sock, 100_000, 10)
            for frame in framer.feed(data):
                assert isinstance(frame, bytes)
                command = json.loads(frame)
                got[command["execute"]] = [os.readlink(f"/proc/self/fd/{fd}") for fd in fds]
                await peer.say({"return": {}, "id": command["id"]})
            close_all(fds)

    with open("/dev/null") as null, open("/dev/zero") as zero:
        async with session(play) as monitor:
            await monitor.execute("none")
            await monitor.execute("both", fds=[null.fileno(), zero.fileno()])
            await monitor.execute("after")
    assert got == {"none": [], "both": ["/dev/null", "/dev/zero"], "after": []}


class Reader:
    """A peer that reads only when told, and notes which command each descriptor came with."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.got: list[tuple[object, list[str]]] = []

    async def play(self, peer: Peer) -> None:
        await self.go.wait()
        framer = Framer(limit=10 << 20)
        while not self.got or self.got[-1][0] != "last":
            data, fds, _ = await receive(peer.sock, 1 << 20, 10)
            for frame in framer.feed(data):
                assert isinstance(frame, bytes)
                command = json.loads(frame)
                self.got.append((command["execute"], []))
                await peer.say({"return": {}, "id": command["id"]})
            # The kernel ends a read behind the piece that they came with; ours is a whole command.
            assert not fds or not framer.inside
            for fd in fds:
                self.got[-1][1].append(os.readlink(f"/proc/self/fd/{fd}"))
            close_all(fds)


# Around what a socket holds: some of these leave a remainder that is too small to make the writer wait.
@pytest.mark.parametrize("size", [*range(150_000, 300_000, 25_000), 3_000_000])
async def test_descriptors_wait_until_what_is_before_them_has_gone(size: int) -> None:
    reader = Reader()
    with open("/dev/null") as null:
        async with session(reader.play) as monitor:
            big = asyncio.create_task(monitor.execute("big", {"data": "x" * size}))
            files = asyncio.create_task(monitor.execute("files", fds=[null.fileno()]))
            last = asyncio.create_task(monitor.execute("last"))
            await asyncio.sleep(0.02)
            reader.go.set()
            await asyncio.gather(big, files, last)
    assert reader.got == [("big", []), ("files", ["/dev/null"]), ("last", [])]


async def test_descriptors_of_a_command_that_was_given_up_are_not_sent_later() -> None:
    """Their numbers may mean other files by then."""
    reader = Reader()
    async with session(reader.play) as monitor:
        big = asyncio.create_task(monitor.execute("big", {"data": "x" * 3_000_000}))
        await asyncio.sleep(0)
        with open("/dev/null") as null, pytest.raises(CommandTimeout):
            await monitor.execute("files", fds=[null.fileno()], deadline=0.02)
        with open("/dev/zero"):
            reader.go.set()
            await big
            await monitor.execute("last")
    assert reader.got == [("big", []), ("last", [])]
