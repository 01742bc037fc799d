"""The guest's agent as the launcher knows it: asks it now and then, and tells what is new.

It is asked when it connects, when something happened that changes its answers (a lease was taken), and every two minutes: an idle guest
is to stay idle. What only a client wants to know (users, file systems) is asked when a client asks (`agent_requests`). Whether somebody is
there is said by QEMU's event for the port; an agent that is there and silent is left alone for longer and longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from msgspec.structs import replace

from qvirt_crds.agent import AgentReport, CredentialsSync
from qvirt_launcher import agent_replies
from qvirt_launcher.agent_channel import DEADLINE, Channel
from qvirt_launcher.agent_replies import Info
from qvirt_launcher.errors import AgentAway, AgentError, AgentRefused

_log = logging.getLogger(__name__)

#: Seconds to the next round after the agent has connected or was nudged; the last for ever. Interfaces come up late in a boot.
ROUNDS: Final = (5.0, 15.0, 40.0, 60.0, 120.0)
#: Seconds to the next try while it doesn't answer.
SILENT: Final = (5.0, 15.0, 60.0, 300.0)
#: Until a thaw that failed is tried again.
_THAW_AGAIN: Final = 5.0
#: A freeze flushes every file system first.
_FREEZE_SECONDS: Final = 60.0

T = TypeVar("T")


class Agent:
    """See the module. `run` is its life; the rest may be called from anywhere in the loop.

    :param on_change: told when `report` has changed.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.channel = Channel()
        #: Its words about itself; None until it has said them.
        self.info: Info | None = None
        #: What access credentials will ask of it.
        self.needs_keys = False
        self.needs_passwords = False
        self._on_change = on_change
        self._report = AgentReport()
        self._wake = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        #: Whether the guest has ended.
        self.over = False
        self._paused = False
        self._clock_is_wrong = False
        self._round = 0
        self._failures = 0
        #: Of the loop's clock; None: the guest isn't frozen by us.
        self._thaw_at: float | None = None

    # --- what happens around it ---

    @property
    def report(self) -> AgentReport | None:
        """What is to be told; None as long as there is nothing."""
        return None if self._report == AgentReport() else self._report

    @property
    def connected(self) -> bool:
        """Whether somebody in the guest has the port open."""
        return self.channel.is_open

    @property
    def paused(self) -> bool:
        """Whether the guest's vCPUs stand still: no agent answers then, and none is to blame."""
        return self._paused

    @property
    def frozen(self) -> bool:
        """Whether the guest's file systems are frozen: its agent does little then."""
        return self._report.freeze_status == "frozen"

    def listen(self, listener: Callable[[], None]) -> None:
        """Have somebody told when the agent comes or goes, or is over."""
        self._listeners.append(listener)

    async def attach(self, path: str) -> None:
        """Connect to QEMU's socket.

        :raise OSError: it can't be connected to.
        """
        await self.channel.connect(path)

    def port(self, *, is_open: bool) -> None:
        """QEMU's event: somebody opened the port, or nobody has it open any more."""
        if is_open:
            self.channel.opened()
            self.info = None
            self._round = self._failures = 0
            self._set(connected=self.channel.is_open)
            self._wake.set()
        else:
            self.channel.closed()
            self._set(connected=False, interfaces=None, freeze_status="")
        for listener in self._listeners:
            listener()

    def vcpus(self, *, run: bool) -> None:
        """QEMU's event: the guest was paused, or goes on. Its clock has stood still meanwhile."""
        if run and self._paused:
            self._clock_is_wrong = True
            self._wake.set()
        self._paused = not run

    def nudge(self) -> None:
        """Something happened to its interfaces."""
        if self._round:
            self._round = 1
            self._wake.set()

    def close(self) -> None:
        """The guest has ended: `run` returns, whoever waits for an answer hears that there is none."""
        self.over = True
        self.port(is_open=False)
        self.channel.close()
        self._wake.set()

    def credentials(self, sync: CredentialsSync) -> None:
        """How it went with the access credentials."""
        self._set(credentials=sync)

    # --- asking ---

    async def run(self) -> None:
        """Ask when it is time, until `close`."""
        while not self.over:
            self._wake.clear()
            await self._thaw_if_due()
            if self.connected and not self._paused:
                await self._ask()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._next()):
                    await self._wake.wait()

    async def ask(self, command: str, kind: type[T], deadline: float = DEADLINE) -> T:
        """A command without arguments, its reply as a struct.

        :raise AgentError: see `Channel.execute`, or the reply is nonsense.
        """
        reply = await self.channel.execute(command, deadline=deadline)
        return agent_replies.convert(command, reply, kind)

    async def introduced(self) -> Info:
        """What the agent says of itself, asked once for each that connects.

        :raise AgentError: it doesn't say.
        """
        if self.info is None:
            self.info = await self.ask("guest-info", Info)
            unsupported = agent_replies.unsupported(
                self.info, keys=self.needs_keys, passwords=self.needs_passwords
            )
            if unsupported:
                _log.warning("%s (version %s)", unsupported, self.info.version)
            self._set(version=agent_replies.text(self.info.version), unsupported=unsupported)
        return self.info

    async def refresh(self, *, identity: bool = True) -> None:
        """Ask for everything that `report` has; a frozen guest answers only that it is.

        :param identity: also for what hardly ever changes.
        :raise AgentError: it doesn't answer.
        """
        await self._ask_status()
        if self.frozen:
            return
        await self._ask_interfaces()
        if identity:
            await self._ask_identity()

    async def _ask(self) -> None:
        try:
            await self.introduced()
            if self._clock_is_wrong:
                await self._set_clock()
            await self.refresh(identity=self._round % 2 == 0)
        except AgentAway:
            pass
        except AgentError as error:
            if not self._failures:
                _log.warning("%s", error)
            self._failures += 1
            return
        self._failures = 0
        self._round = min(self._round + 1, len(ROUNDS) - 1)

    async def _ask_status(self) -> None:
        status = await self._try("guest-fsfreeze-status", str)
        known = agent_replies.freeze_status(status)
        if known == "thawed":
            # It was rebooted, or thawed by somebody in it.
            self._thaw_at = None
        self._set(freeze_status=known)

    async def _ask_interfaces(self) -> None:
        found = await self._try("guest-network-get-interfaces", list[agent_replies.Interface])
        if found is not None:
            self._set(interfaces=agent_replies.interfaces(found))

    async def _ask_identity(self) -> None:
        system = await self._try("guest-get-osinfo", agent_replies.OS)
        if system is not None:
            self._set(os=agent_replies.os_info(system))
        host = await self._try("guest-get-host-name", agent_replies.HostName)
        if host is not None:
            self._set(hostname=agent_replies.text(host.host_name))
        zone = await self._try("guest-get-timezone", agent_replies.Timezone)
        if zone is not None:
            self._set(timezone=agent_replies.timezone(zone))

    async def _try(self, command: str, kind: type[T]) -> T | None:
        """None when the agent can't do it."""
        if self.info is not None and not self.info.knows(command):
            return None
        try:
            return await self.ask(command, kind)
        except AgentRefused as error:
            _log.debug("%s", error)
            return None

    async def _set_clock(self) -> None:
        """The guest's clock stood still while it was paused."""
        self._clock_is_wrong = False
        try:
            await self.channel.execute("guest-set-time", {"time": time.time_ns()})
        except AgentRefused as error:
            _log.info("%s", error)

    def _next(self) -> float:
        """When to look again, by the loop's clock."""
        now = asyncio.get_running_loop().time()
        if not self.connected or self._paused:
            return now + ROUNDS[-1]
        if self._failures:
            at = now + SILENT[min(self._failures, len(SILENT)) - 1]
        else:
            at = now + ROUNDS[max(self._round - 1, 0)]
        return at if self._thaw_at is None else min(at, self._thaw_at)

    # --- freezing ---

    async def freeze(self, seconds: float) -> None:
        """Freeze all file systems; thaw them after so many seconds, whatever happens.

        :raise AgentError: they are not frozen, or will not be for long.
        """
        if await self.ask("guest-fsfreeze-status", str) != "frozen":
            try:
                await self.channel.execute("guest-fsfreeze-freeze", deadline=_FREEZE_SECONDS)
            except AgentRefused:
                raise
            except BaseException:
                # It may be frozen, now or later, and nobody would know.
                self._thaw_in(0)
                raise
        self._thaw_in(seconds)
        self._set(freeze_status="frozen")

    async def thaw(self) -> None:
        """Thaw all file systems.

        :raise AgentError: they may still be frozen; it is tried again when they were frozen by us.
        """
        await self.channel.execute("guest-fsfreeze-thaw", deadline=_FREEZE_SECONDS)
        self._thaw_at = None
        self._set(freeze_status="thawed")
        self._wake.set()

    def _thaw_in(self, seconds: float) -> None:
        self._thaw_at = asyncio.get_running_loop().time() + seconds
        self._wake.set()

    async def _thaw_if_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._thaw_at is None or self._thaw_at > now or not self.connected or self._paused:
            return
        try:
            await self.thaw()
            _log.warning("the guest was thawed: its time was over")
        except AgentError as error:
            _log.warning("the guest is still frozen: %s", error)
            self._thaw_in(_THAW_AGAIN)

    def _set(self, **changes: object) -> None:
        report = replace(self._report, **changes)
        if report != self._report:
            self._report = report
            self._on_change()
