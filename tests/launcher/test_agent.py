"""The agent's client against agents that misbehave, on a real socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvirt_crds import agent as wire
from qvirt_launcher import agent as agent_module
from qvirt_launcher import agent_channel, agent_credentials
from qvirt_launcher.agent import Agent
from qvirt_launcher.agent_credentials import Credentials
from qvirt_launcher.agent_exec import MOST_LEFT, Programs
from qvirt_launcher.agent_keys import authorize
from qvirt_launcher.agent_requests import Requests
from qvirt_launcher.errors import (
    AgentAway,
    AgentCommandMissing,
    AgentError,
    AgentRefused,
    AgentSilent,
)
from qvirt_launcher.secretfiles import Credential

Answer = Callable[[dict[str, Any]], object]
SECONDS = 10.0

COMMANDS = (
    *("guest-ping", "guest-get-time", "guest-info", "guest-shutdown", "guest-get-users"),
    *("guest-network-get-interfaces", "guest-get-fsinfo", "guest-get-host-name"),
    *("guest-get-timezone", "guest-get-osinfo", "guest-fsfreeze-status", "guest-exec"),
    *("guest-set-user-password", "guest-ssh-add-authorized-keys", "guest-set-time"),
)


class Missing(Exception):
    """The fake doesn't know the command."""


class Fake:
    """QEMU's end of the port with an agent behind it.

    It answers as QEMU's does: commands one after the other, ``guest-sync-delimited`` with 0xFF in front, half a command
    forgotten at 0xFF. What is in `before` is sent ahead of the next answer; a command in `silent` gets none.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self.arguments: list[dict[str, Any]] = []
        self.before = b""
        self.silent: set[str] = set()
        self.knows = set(COMMANDS)
        self.frozen = False
        self.programs: dict[int, dict[str, Any]] = {}
        #: Of programs that are started from now on.
        self.end: dict[str, Any] = {"exited": True, "exitcode": 0}
        self.writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None

    async def listen(self, path: str) -> None:
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            with contextlib.suppress(ConnectionError):  # with something unread
                await self.writer.wait_closed()
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                request = json.loads(line.rpartition(b"\xff")[2])
                self.answer(request)
                await writer.drain()

    def answer(self, request: dict[str, Any]) -> None:
        command, arguments = request["execute"], request.get("arguments", {})
        if command != "guest-sync-delimited":
            self.said.append(command)
            self.arguments.append(arguments)
        if command in self.silent:
            return
        assert self.writer is not None
        rubbish, self.before = self.before, b""
        delimiter = b"\xff" if command == "guest-sync-delimited" else b""
        self.writer.write(rubbish + delimiter + self._reply(command, arguments) + b"\n")

    def _reply(self, command: str, arguments: dict[str, Any]) -> bytes:
        try:
            return json.dumps({"return": self.do(command, arguments)}).encode()
        except Missing:
            error = {
                "class": "CommandNotFound",
                "desc": f"The command {command} has not been found",
            }
            return json.dumps({"error": error}).encode()

    def do(self, command: str, arguments: dict[str, Any]) -> object:
        allowed = ("guest-sync-delimited", "guest-ping", "guest-info")
        thawing = command.startswith("guest-fsfreeze")
        known = command in (*allowed, *self.knows, "guest-exec-status") or thawing
        if not known or (self.frozen and command not in allowed and not thawing):
            raise Missing
        match command:
            case "guest-sync-delimited":
                return arguments["id"]
            case "guest-info":
                listed = [
                    {"name": name, "enabled": True, "success-response": True}
                    for name in sorted(self.knows)
                ]
                return {"version": "7.2.0", "supported_commands": listed}
            case "guest-fsfreeze-status":
                return "frozen" if self.frozen else "thawed"
            case "guest-fsfreeze-freeze" | "guest-fsfreeze-thaw":
                self.frozen = command.endswith("freeze")
                return 1
            case "guest-get-osinfo":
                return {"id": "debian", "name": "Debian", "version-id": "12", "variant": "new"}
            case "guest-get-host-name":
                return {"host-name": "fake"}
            case "guest-get-timezone":
                return {"zone": "CET", "offset": 3600}
            case "guest-network-get-interfaces":
                return INTERFACES
            case "guest-get-users":
                return [{"user": f"u{n}", "login-time": 1.5} for n in range(12)]
            case "guest-get-fsinfo":
                return [{"name": "vda1", "mountpoint": "/", "type": "ext4", "disk": []}]
            case "guest-exec":
                pid = len(self.programs) + 1
                self.programs[pid] = dict(self.end)
                return {"pid": pid}
            case "guest-exec-status":
                return self.programs[arguments["pid"]]
            case _:
                return {}


INTERFACES = [
    {
        "name": "lo",
        "hardware-address": "00:00:00:00:00:00",
        "ip-addresses": [{"ip-address": "127.0.0.1"}],
    },
    {
        "name": "enp1s0",
        "hardware-address": "02:00:00:00:00:AB",
        "ip-addresses": [
            {"ip-address": "10.0.2.2", "ip-address-type": "ipv4", "prefix": 24},
            {"ip-address": "not an address"},
            {"ip-address": "fe80::1"},
        ],
    },
    {"name": "tun0"},
]


class World:
    """A fake and our end."""

    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.changes = 0
        self.agent = Agent(self._changed)
        self.programs = Programs(self.agent.channel)
        self.requests = Requests(self.agent, self.programs)

    def _changed(self) -> None:
        self.changes += 1

    async def ask(self, what: str, /, **arguments: object) -> Any:
        return await self.requests.carry_out(what, wire.ARGUMENTS[what](**arguments))

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not wanted():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def world(*, running: bool = False) -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="qv") as folder:
        fake = Fake()
        path = str(Path(folder) / "agent.sock")
        await fake.listen(path)
        there = World(fake)
        await there.agent.attach(path)
        await there.until(lambda: fake.writer is not None)
        there.agent.port(is_open=True)
        task = asyncio.create_task(there.agent.run()) if running else None
        try:
            yield there
        finally:
            there.agent.close()
            if task is not None:
                async with asyncio.timeout(SECONDS):
                    await task
            await fake.close()


# --- the channel -----------------------------------------------------------------------------------------------------

RUBBISH = st.lists(
    st.sampled_from(
        [
            b'{"return": 1}\n',
            b'{"return": {}}\n',
            b'{"error": {"class": "GenericError", "desc": "old"}}\n',
            b"\xff",
            b'\xff{"return": 5}\n',
            b'{"return": {"half',
            b"\n",
            b"login: ",
            b"{}\n",
            b'{"event": "X"}\n',
            b"\x00\x80\xfe",
        ]
    )
    | st.binary(max_size=20)
).map(b"".join)


@given(st.lists(RUBBISH, min_size=1, max_size=4))
@settings(max_examples=60)
def test_rubbish_before_the_mark_is_never_an_answer(rubbish: list[bytes]) -> None:
    async def run() -> None:
        async with world() as there:
            for some in rubbish:
                there.fake.before = some
                assert await there.agent.channel.execute("guest-get-host-name") == {
                    "host-name": "fake"
                }

    asyncio.run(run())


async def test_an_answer_that_comes_too_late_is_not_the_next_ones() -> None:
    async with world() as there:
        there.fake.silent = {"guest-get-osinfo"}
        with pytest.raises(AgentSilent, match=r"guest-get-osinfo: .* within 0\.1 s"):
            await there.agent.channel.execute("guest-get-osinfo", deadline=0.1)
        there.fake.silent = set()
        there.fake.before = b'{"return": {"id": "late"}}\n'
        assert await there.agent.channel.execute("guest-get-host-name") == {"host-name": "fake"}


async def test_commands_of_many_come_one_after_the_other() -> None:
    async with world() as there:
        results = await asyncio.gather(
            *(there.agent.channel.execute("guest-get-host-name") for _ in range(5)),
            *(there.agent.channel.execute("guest-fsfreeze-status") for _ in range(5)),
        )
    assert results == [{"host-name": "fake"}] * 5 + ["thawed"] * 5


async def test_nobody_there_is_said_at_once() -> None:
    async with world() as there:
        there.agent.port(is_open=False)
        with pytest.raises(AgentAway, match="qemu-guest-agent"):
            await there.agent.channel.execute("guest-ping")
        assert there.fake.said == []


@pytest.mark.parametrize("is_open", [False, True], ids=["it closes", "it is another one"])
async def test_an_agent_that_leaves_keeps_nobody_waiting(is_open: bool) -> None:
    async with world() as there:
        there.fake.silent = {"guest-ping"}
        waiting = asyncio.create_task(there.agent.channel.execute("guest-ping", deadline=60))
        await there.until(lambda: there.fake.said == ["guest-ping"])
        there.agent.port(is_open=is_open)
        with pytest.raises(AgentAway):
            await waiting
        there.agent.port(is_open=True)
        there.fake.silent = set()
        assert await there.agent.channel.execute("guest-ping") == {}


async def test_the_end_of_the_guest_ends_every_wait() -> None:
    async with world() as there:
        there.fake.silent = {"guest-ping"}
        waiting = [
            asyncio.create_task(there.agent.channel.execute("guest-ping", deadline=60))
            for _ in range(3)
        ]
        await there.until(lambda: there.fake.said == ["guest-ping"])
        there.agent.close()
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, AgentAway)


async def test_qemu_hanging_up_is_an_answer() -> None:
    async with world() as there:
        await there.agent.channel.execute("guest-ping")
        await there.fake.close()
        with pytest.raises(AgentAway, match="QEMU has closed"):
            await there.agent.channel.execute("guest-ping")


async def test_a_port_that_floods_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_channel, "_MOST_BYTES", 1000)
    async with world() as there:
        there.fake.before = b"x" * 5000 + b"\n"
        with pytest.raises(AgentSilent, match="no answer"):
            await there.agent.channel.execute("guest-ping")
        assert await there.agent.channel.execute("guest-ping") == {}


async def test_the_agents_error_is_told_in_its_words() -> None:
    async with world() as there:
        with pytest.raises(
            AgentCommandMissing, match="guest-nothing: The command guest-nothing has"
        ):
            await there.agent.channel.execute("guest-nothing")


async def test_a_shutdown_is_answered_only_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_channel, "_REFUSAL_SECONDS", 0.1)
    async with world() as there:
        there.fake.silent = {"guest-shutdown"}
        await there.ask("agent-shutdown", mode="reboot")
        assert there.fake.arguments[-1] == {"mode": "reboot"}
        there.fake.silent = set()
        there.fake.knows -= {"guest-shutdown"}
        with pytest.raises(AgentCommandMissing):
            await there.ask("agent-shutdown", mode="powerdown")


# --- what is reported ------------------------------------------------------------------------------------------------


async def test_an_agent_introduces_itself_once_and_only_news_are_told() -> None:
    async with world(running=True) as there:
        await there.until(lambda: bool(there.agent.report and there.agent.report.timezone))
        report = there.agent.report
        assert report is not None
        assert report.os == wire.GuestOSInfo(id="debian", name="Debian", version_id="12")
        assert (report.hostname, report.timezone, report.version) == ("fake", "CET, 3600", "7.2.0")
        assert report.unsupported == ""
        assert report.interfaces == (
            wire.AgentInterface(
                name="enp1s0", mac="02:00:00:00:00:ab", addresses=("10.0.2.2", "fe80::1")
            ),
            wire.AgentInterface(name="tun0"),
        )
        changes, asked = there.changes, len(there.fake.said)
        there.agent.nudge()
        await there.until(lambda: len(there.fake.said) >= asked + 2)
        await there.agent.channel.execute("guest-ping")
        assert there.changes == changes
        assert there.fake.said.count("guest-info") == 1


async def test_an_agent_that_goes_takes_what_may_be_wrong_with_it() -> None:
    async with world(running=True) as there:
        await there.until(lambda: bool(there.agent.report and there.agent.report.timezone))
        there.agent.port(is_open=False)
        report = there.agent.report
        assert report is not None
        assert (report.connected, report.interfaces, report.hostname) == (False, None, "fake")
        there.agent.port(is_open=True)
        await there.until(lambda: bool(there.agent.report and there.agent.report.interfaces))
        assert there.fake.said.count("guest-info") == 2


async def test_an_agent_that_knows_little_is_asked_little() -> None:
    async with world(running=True) as there:
        there.fake.knows = {"guest-info", "guest-ping", "guest-get-host-name"}
        await there.until(lambda: bool(there.agent.report and there.agent.report.hostname))
        report = there.agent.report
        assert report is not None
        assert report.unsupported == "This guest agent doesn't support required basic commands"
        assert "guest-get-osinfo" not in there.fake.said


async def test_an_agent_that_answers_nonsense_is_left_alone_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_module, "SILENT", (0.01, 0.02))
    async with world() as there:
        good = there.fake.do
        there.fake.do = lambda command, arguments: (  # type: ignore[method-assign]
            ["?"] if command == "guest-network-get-interfaces" else good(command, arguments)
        )
        task = asyncio.create_task(there.agent.run())
        await there.until(lambda: there.fake.said.count("guest-network-get-interfaces") > 3)
        there.fake.do = good  # type: ignore[method-assign]
        await there.until(lambda: bool(there.agent.report and there.agent.report.interfaces))
        there.agent.close()
        await task


async def test_a_paused_guest_is_left_alone_and_gets_the_right_time() -> None:
    async with world(running=True) as there:
        await there.until(lambda: "guest-get-timezone" in there.fake.said)
        await there.agent.channel.execute("guest-ping")
        there.agent.vcpus(run=False)
        there.fake.said.clear()
        there.agent.nudge()
        await there.ask("agent-ping")
        for command in ("agent-info", "agent-users", "agent-filesystems"):
            with pytest.raises(AgentSilent, match="paused"):
                await there.ask(command)
        assert there.fake.said == []
        there.agent.vcpus(run=True)
        await there.until(lambda: "guest-set-time" in there.fake.said)


# --- freezing --------------------------------------------------------------------------------------------------------


async def test_a_frozen_guest_is_thawed_in_time() -> None:
    async with world(running=True) as there:
        await there.until(lambda: "guest-get-timezone" in there.fake.said)
        await there.ask("agent-freeze", unfreeze_timeout_seconds=0.05)
        assert there.fake.frozen
        await there.until(lambda: not there.fake.frozen)
        await there.until(
            lambda: bool(there.agent.report and there.agent.report.freeze_status == "thawed")
        )


async def test_a_guest_that_may_be_frozen_is_thawed_at_once() -> None:
    async with world(running=True) as there:
        await there.until(lambda: "guest-get-timezone" in there.fake.said)
        there.fake.silent = {"guest-fsfreeze-freeze"}
        asked = asyncio.create_task(there.ask("agent-freeze"))
        await there.until(lambda: there.fake.said[-1] == "guest-fsfreeze-freeze")
        there.fake.frozen = True
        asked.cancel()  # its client has gone
        await there.until(lambda: not there.fake.frozen)
        with pytest.raises(asyncio.CancelledError):
            await asked


async def test_a_second_freeze_only_takes_longer() -> None:
    async with world() as there:
        await there.ask("agent-freeze", unfreeze_timeout_seconds=50)
        await there.ask("agent-freeze", unfreeze_timeout_seconds=600)
        assert there.fake.said.count("guest-fsfreeze-freeze") == 1
        await there.ask("agent-thaw")
        assert not there.fake.frozen


async def test_a_refused_freeze_leaves_nothing_to_thaw() -> None:
    async with world(running=True) as there:
        await there.until(lambda: "guest-get-timezone" in there.fake.said)
        good = there.fake.do

        def refuse(command: str, arguments: dict[str, Any]) -> object:
            if command == "guest-fsfreeze-freeze":
                raise Missing
            return good(command, arguments)

        there.fake.do = refuse  # type: ignore[method-assign]
        with pytest.raises(AgentRefused):
            await there.ask("agent-freeze")
        await there.agent.channel.execute("guest-ping")
        assert "guest-fsfreeze-thaw" not in there.fake.said


# --- programs --------------------------------------------------------------------------------------------------------


async def test_a_program_ends_with_its_code_and_output() -> None:
    async with world() as there:
        there.fake.end = {
            "exited": True,
            "exitcode": 3,
            "out-data": base64.b64encode(b"out\xff").decode(),
            "err-data": base64.b64encode(b"err").decode(),
        }
        done = await there.ask("agent-exec", command="x", args=("a", "b"))
        assert done == wire.ExecReturn(
            exit_code=3, stdout="out\N{REPLACEMENT CHARACTER}", stderr="err"
        )
        assert there.fake.arguments[0] == {"path": "x", "arg": ["a", "b"], "capture-output": True}
        there.fake.end = {"exited": True, "signal": 9}
        assert (await there.ask("agent-exec", command="x")).exit_code == 137


async def test_programs_that_hang_are_killed_later_and_do_not_pile_up() -> None:
    async with world() as there:
        there.fake.end = {"exited": False}
        for _ in range(MOST_LEFT):
            with pytest.raises(AgentSilent, match="did not end within"):
                await there.ask("agent-exec", command="hang", timeout_seconds=0.3)
        with pytest.raises(AgentRefused, match=f"{MOST_LEFT} programs"):
            await there.ask("agent-exec", command="hang", timeout_seconds=5.0)
        kills = [a for a in there.fake.arguments if a.get("path") == "/bin/sh"]
        assert kills
        assert kills[0]["arg"][-1] == "1"
        for program in there.fake.programs.values():
            program["exited"] = True
        there.fake.end = {"exited": True, "exitcode": 0}
        assert (await there.ask("agent-exec", command="x", timeout_seconds=5.0)).exit_code == 0


async def test_a_new_agent_knows_nothing_of_old_programs() -> None:
    async with world() as there:
        there.fake.end = {"exited": False}
        with pytest.raises(AgentSilent):
            await there.ask("agent-exec", command="hang", timeout_seconds=0.3)
        there.agent.port(is_open=True)
        there.fake.said.clear()
        there.fake.end = {"exited": True, "exitcode": 0}
        await there.ask("agent-exec", command="x", timeout_seconds=5.0)
        assert there.fake.said == ["guest-exec", "guest-exec-status"]


# --- who may log in --------------------------------------------------------------------------------------------------


async def test_an_agent_without_the_command_writes_the_file() -> None:
    async with world() as there:
        there.fake.knows -= {"guest-ssh-add-authorized-keys"}
        await authorize(there.agent, there.programs, "vera", ("key one", "key two"), reset=False)
        started = there.fake.arguments[there.fake.said.index("guest-exec")]
        assert (started["path"], started["arg"][-1]) == ("su", "vera")
        assert base64.b64decode(started["input-data"]) == b"key one\nkey two\n"
        there.fake.end = {
            "exited": True,
            "exitcode": 1,
            "err-data": base64.b64encode(b"no vera").decode(),
        }
        with pytest.raises(AgentRefused, match="no vera"):
            await authorize(there.agent, there.programs, "vera", ("key",), reset=True)


@contextlib.asynccontextmanager
async def looked_after(there: World, folder: Path) -> AsyncIterator[None]:
    credentials = (
        Credential(kind="keys", secret="a", directory=str(folder / "a"), users=("vera", "otto")),
        Credential(kind="keys", secret="b", directory=str(folder / "b"), users=("vera",)),
        Credential(kind="passwords", secret="c", directory=str(folder / "c")),
    )
    keeper = Credentials(there.agent, there.programs, credentials)
    task = asyncio.create_task(keeper.run())
    try:
        yield
    finally:
        there.agent.close()
        async with asyncio.timeout(SECONDS):
            await task


def secrets(folder: Path) -> None:
    for path, text in {
        "a/x": "key 1\n",
        "b/y": "# no key\nkey 2\nkey 1\n",
        "c/otto": "secret\n",
    }.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    (folder / "a" / "..data").write_text("the kubelet's own")


def brought(fake: Fake) -> dict[str, object]:
    """The last that came into the guest for each user."""
    found: dict[str, object] = {}
    for command, told in zip(fake.said, fake.arguments, strict=True):
        if command == "guest-ssh-add-authorized-keys":
            assert told["reset"] is True
            found[told["username"]] = told["keys"]
        elif command == "guest-set-user-password":
            found[f"{told['username']}'s word"] = base64.b64decode(told["password"]).decode()
    return found


def synced(there: World) -> wire.CredentialsSync | None:
    return there.agent.report.credentials if there.agent.report else None


async def test_credentials_come_into_the_guest_and_follow_their_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_credentials, "LOOK_SECONDS", 0.02)
    secrets(tmp_path)
    async with world() as there, looked_after(there, tmp_path):
        await there.until(lambda: synced(there) == wire.CredentialsSync(synchronized=True))
        assert brought(there.fake) == {
            "vera": ["key 1", "key 2"],
            "otto": ["key 1"],
            "otto's word": "secret",
        }
        count = len(there.fake.said)
        (tmp_path / "a" / "x").write_text("")
        await there.until(lambda: brought(there.fake)["otto"] == [])
        await there.until(lambda: brought(there.fake)["vera"] == ["key 2", "key 1"])
        assert there.fake.said[count:].count("guest-set-user-password") == 0
        # Another boot.
        there.agent.port(is_open=True)
        await there.until(lambda: "guest-set-user-password" in there.fake.said[count:])


async def test_credentials_wait_for_the_agent_and_tell_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_credentials, "LOOK_SECONDS", 0.02)
    async with world() as there:
        there.agent.port(is_open=False)
        async with looked_after(there, tmp_path):
            offline = wire.CredentialsSync(synchronized=False, message="Guest agent is offline")
            await there.until(lambda: synced(there) == offline)
            there.agent.port(is_open=True)
            await there.until(lambda: "Secret a:" in (synced(there) or offline).message)
            secrets(tmp_path)
            there.fake.knows -= {"guest-set-user-password"}
            await there.until(
                lambda: "guest-set-user-password" in (synced(there) or offline).message
            )
            assert brought(there.fake)["vera"] == ["key 1", "key 2"]
            there.fake.knows |= {"guest-set-user-password"}
            await there.until(lambda: synced(there) == wire.CredentialsSync(synchronized=True))


# --- the rest of what clients ask ------------------------------------------------------------------------------------


async def test_lists_in_the_whole_are_short_and_lists_of_their_own_are_not() -> None:
    async with world() as there:
        info = await there.ask("agent-info")
        assert len(info.user_list) == wire.MOST_LISTED
        assert len((await there.ask("agent-users")).items) == 12
        (root,) = (await there.ask("agent-filesystems")).items
        assert (root.disk_name, root.mount_point, root.total_bytes) == ("vda1", "/", 0)
        there.fake.frozen = True
        frozen = await there.ask("agent-info")
        assert (frozen.fs_freeze_status, frozen.user_list, frozen.hostname) == (
            "frozen",
            (),
            "fake",
        )


@given(st.lists(st.sampled_from(sorted(wire.ARGUMENTS)), max_size=4), RUBBISH)
@settings(max_examples=30)
def test_an_agent_that_returns_anything_breaks_nothing(commands: list[str], rubbish: bytes) -> None:
    strange: list[object] = [
        None,
        1,
        "x",
        [],
        [{}],
        {},
        {"pid": -1},
        {"exited": 1},
        [[]],
        {"host-name": []},
    ]
    given_arguments: dict[str, dict[str, object]] = {
        "agent-exec": {"command": "x", "timeout_seconds": 0.5},
        "agent-set-password": {"user": "u", "password": "p"},
        "agent-authorized-keys": {"user": "u", "keys": ("k",)},
    }

    async def run() -> None:
        async with world() as there:
            good = there.fake.do
            turn = iter(strange * 20)
            there.fake.do = lambda command, arguments: (  # type: ignore[method-assign]
                good(command, arguments) if command == "guest-sync-delimited" else next(turn)
            )
            for command in commands:
                there.fake.before = rubbish
                if command == "agent-shutdown":
                    continue
                with contextlib.suppress(AgentError):
                    await there.ask(command, **given_arguments.get(command, {}))

    asyncio.run(run())
