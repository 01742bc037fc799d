"""What clients of the control socket may ask of the guest's agent: the commands of `qvirt_crds.agent`, carried out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar, assert_never

import msgspec

from qvirt_crds import agent as wire
from qvirt_crds.model import Empty
from qvirt_launcher import agent_replies
from qvirt_launcher.agent import Agent
from qvirt_launcher.agent_exec import Programs
from qvirt_launcher.agent_keys import authorize, set_password
from qvirt_launcher.errors import AgentRefused, AgentSilent

T = TypeVar("T")

#: Of ``agent-info``, which takes half a dozen questions.
_INFO_SECONDS: Final = 30.0
_UNFREEZE_SECONDS: Final = 300.0

Arguments = (
    wire.PingArguments
    | wire.ExecArguments
    | wire.FreezeArguments
    | wire.ShutdownArguments
    | wire.PasswordArguments
    | wire.AuthorizedKeysArguments
)


class Requests:
    """See the module."""

    def __init__(self, agent: Agent, programs: Programs) -> None:
        self._agent = agent
        self._programs = programs

    async def carry_out(self, command: str, arguments: msgspec.Struct) -> object:
        """One command of `wire.ARGUMENTS`, with its arguments; returns what the client is told.

        :raise AgentError: it failed.
        """
        match command:
            case "agent-info":
                return await self._info()
            case "agent-users":
                return wire.UserList(metadata=Empty(), items=await self._users())
            case "agent-filesystems":
                return wire.FilesystemList(metadata=Empty(), items=await self._filesystems())
            case "agent-thaw":
                await self._agent.thaw()
                return None
            case _:
                assert isinstance(arguments, Arguments)
                return await self._act(arguments)

    async def _act(self, given: Arguments) -> object:
        match given:
            case wire.PingArguments():
                await self._ping(given.timeout_seconds)
                return None
            case wire.ExecArguments():
                self._refuse_paused("guest-exec")
                return await self._programs.run(
                    given.command, given.args, seconds=given.timeout_seconds
                )
            case wire.FreezeArguments(unfreeze_timeout_seconds=seconds):
                self._refuse_paused("guest-fsfreeze-freeze")
                await self._agent.freeze(seconds if seconds > 0 else _UNFREEZE_SECONDS)
                return None
            case wire.ShutdownArguments(mode=mode):
                self._refuse_paused("guest-shutdown")
                await self._agent.channel.tell("guest-shutdown", {"mode": mode})
                return None
            case wire.PasswordArguments():
                await set_password(self._agent, given.user, given.password, crypted=given.crypted)
                return None
            case wire.AuthorizedKeysArguments():
                who = given.user, given.keys
                await authorize(self._agent, self._programs, *who, reset=given.reset)
                return None
            case _:
                assert_never(given)

    async def _ping(self, seconds: float) -> None:
        """A guest that a user has paused answers nothing, and is as it should be."""
        if not self._agent.paused:
            await self._agent.channel.execute("guest-ping", deadline=seconds)

    async def _info(self) -> wire.GuestAgentInfo:
        """What the agent doesn't know, or does not tell while the guest is frozen, is left empty."""
        self._refuse_paused("guest-info")
        try:
            async with asyncio.timeout(_INFO_SECONDS):
                info = await self._agent.introduced()
                await self._agent.refresh()
                users = await self._optional(self._users())
                mounted = await self._optional(self._filesystems())
        except TimeoutError:
            raise AgentSilent(
                f"agent-info: the guest's agent did not answer within {_INFO_SECONDS:g} s"
            ) from None
        report = self._agent.report or wire.AgentReport()
        return wire.GuestAgentInfo(
            guest_agent_version=report.version,
            supported_commands=agent_replies.commands(info),
            hostname=report.hostname,
            os=report.os or wire.GuestOSInfo(),
            timezone=report.timezone,
            user_list=users[: wire.MOST_LISTED],
            fs_info=wire.FilesystemInfo(disks=mounted[: wire.MOST_LISTED]),
            fs_freeze_status=report.freeze_status,
        )

    async def _users(self) -> tuple[wire.GuestUser, ...]:
        self._refuse_paused("guest-get-users")
        return agent_replies.users(
            await self._agent.ask("guest-get-users", list[agent_replies.User])
        )

    async def _filesystems(self) -> tuple[wire.GuestFilesystem, ...]:
        self._refuse_paused("guest-get-fsinfo")
        return agent_replies.filesystems(
            await self._agent.ask("guest-get-fsinfo", list[agent_replies.Filesystem])
        )

    async def _optional(self, asked: Awaitable[tuple[T, ...]]) -> tuple[T, ...]:
        try:
            return await asked
        except AgentRefused:
            return ()

    def _refuse_paused(self, command: str) -> None:
        if self._agent.paused:
            raise AgentSilent(f"{command}: the guest is paused, its agent can't answer; unpause it")
