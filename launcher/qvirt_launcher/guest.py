"""One run of QEMU and all that is connected to it: its process, its monitor, its console, its agent, the answers to its DHCP.

Does what `launcher` says and feeds it with what happens. Methods that wait are run as tasks of the launcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Final

from qvirt_crds import names
from qvirt_crds.errors import QvirtError
from qvirt_crds.report import Attachment
from qvirt_launcher import process, screen
from qvirt_launcher.agent import Agent
from qvirt_launcher.console import Console
from qvirt_launcher.fds import MONITOR_FD, tap_numbers, vhost_numbers
from qvirt_launcher.inputs import CommandFailed, Connected, Exited, Input, Lost, Refused
from qvirt_launcher.job import Ready
from qvirt_launcher.phases import START_SECONDS
from qvirt_netsetup.dhcp import LeaseEvent, Responder
from qvirt_qmp.client import Monitor
from qvirt_qmp.errors import QmpError
from qvirt_qmp.events import Event, Resume, Stop, VserportChange
from qvirt_qmp.multiplex import Broadcast, Multiplexer
from qvirt_qmp.recorder import FlightRecorder
from qvirt_qmp.session import Call

_log = logging.getLogger(__name__)

#: After QEMU's exit: for the events that it sent before to be read from the socket.
_DRAIN_SECONDS: Final = 2.0

#: The id of the agent's port in QEMU.
_AGENT_PORT: Final = "agent"

Spawn = Callable[[Coroutine[None, None, None], str], None]


class NoMachine(QmpError):
    """There is no QEMU that a command could go to."""

    reason = "MachineNotThere"

    def __init__(self, command: str) -> None:
        super().__init__(f"{command}: QEMU does not run (yet, or any more); ask vm-query")


class Descriptors:
    """What came with ``vm-sync``, by position; each is taken once, the rest is closed."""

    def __init__(self, fds: list[int]) -> None:
        self._fds: list[int | None] = [*fds]

    def take(self, position: int) -> int:
        """The descriptor, from now on the caller's to close."""
        handle, self._fds[position] = self._fds[position], None
        assert handle is not None, "control has checked that no position is named twice"
        return handle

    def close(self) -> None:
        """Close what nobody took. Closing twice is fine."""
        for handle in self._fds:
            if handle is not None:
                os.close(handle)
        self._fds.clear()


class Guest:
    """See the module. Made before QEMU is started, of use once.

    :param feed: `launcher.Launcher.feed`.
    :param spawn: starts a task, with its name.
    :param agent: of this guest; lives as long as QEMU.
    :param on_lease: told when the guest takes or gives up an address: interface and event.
    """

    def __init__(
        self,
        console: Console,
        children: process.Children,
        broadcast: Broadcast,
        feed: Callable[[Input], None],
        spawn: Spawn,
        agent: Agent,
    ) -> None:
        self.recorder = FlightRecorder()
        self._console = console
        self._children = children
        self._broadcast = broadcast
        self._feed = feed
        self._spawn = spawn
        self._agent = agent
        self._qemu: process.Qemu | None = None
        #: A signal that came while QEMU was just being started.
        self._doom: signal.Signals | None = None
        self._monitor: Monitor | None = None
        self._multiplexer: Multiplexer | None = None
        self._responders: list[Responder] = []

    @property
    def pid(self) -> int | None:
        """QEMU's; None when there is none."""
        return self._qemu.pid if self._qemu is not None and self._qemu.alive else None

    @property
    def version(self) -> str:
        """QEMU's, as its monitor says it, e.g. ``7.2.22``; empty before that."""
        return self._monitor.version if self._monitor is not None else ""

    async def launch(
        self, ready: Ready, attachments: tuple[Attachment, ...], fds: Descriptors, run_dir: str
    ) -> None:
        """Start QEMU, connect to its monitor, set up what can only be set up there."""
        _log.info("starting %s", list(ready.argv))
        ours, theirs = socket.socketpair()
        try:
            self._qemu = await process.start(
                ready.argv, _fds_for_qemu(theirs, attachments, fds), self._children
            )
        except QvirtError as error:
            ours.close()
            self._feed(Refused(str(error), "QemuFailed"))
            return
        self._spawn(self._await_exit(self._qemu), "qemu's exit")
        if self._doom is not None:
            self._qemu.send_signal(self._doom)
        await self._connect(ours, ready, run_dir)

    def answer_dhcp(
        self,
        attachments: tuple[Attachment, ...],
        fds: Descriptors,
        on_lease: Callable[[str, LeaseEvent], None],
    ) -> None:
        """Answer each interface that has a lease, from now until `aclose`."""
        loop = asyncio.get_running_loop()
        for attachment in attachments:
            if attachment.dhcp_fd is None or attachment.lease is None:
                continue
            told = _about(attachment.interface, on_lease)
            responder = Responder(fds.take(attachment.dhcp_fd), attachment.lease, on_lease=told)
            self._responders.append(responder)
            responder.start(loop)

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> None:
        """A command of our own; that it failed is fed."""
        if self._monitor is None:
            return
        try:
            await self._monitor.execute(command, arguments)
        except QmpError as error:
            _log.info("%s", error)
            self._feed(CommandFailed(command, str(error)))

    async def screenshot(self, path: str, *, wake: bool) -> bytes:
        """The guest's screen as a PNG.

        :param path: of a file to be, in our own directory: QEMU writes it. It is gone afterwards.
        :param wake: move the pointer first.
        :raise QmpError: there is no QEMU, or no screen.
        """
        if self._monitor is None:
            raise NoMachine("vm-screenshot")
        return await screen.shoot(self._monitor, path, wake=wake)

    async def forward(self, call: Call) -> object:
        """A client's command, under the policy.

        :raise QmpError: refused, failed, or there is no QEMU.
        """
        if self._multiplexer is None:
            raise NoMachine(call.command)
        return await self._multiplexer.forward(call)

    def send_signal(self, number: signal.Signals) -> None:
        """To QEMU, or to the one that is just being started."""
        self._doom = number
        if self._qemu is not None:
            self._qemu.send_signal(number)

    async def aclose(self) -> None:
        """Hang up on everything. QEMU itself has ended, or ends with us."""
        self._agent.close()
        if self._multiplexer is not None:
            self._multiplexer.close()
        if self._monitor is not None:
            await self._monitor.aclose()
        for responder in self._responders:
            responder.close()

    async def _connect(self, sock: socket.socket, ready: Ready, run_dir: str) -> None:
        try:
            monitor = await Monitor.connect(
                sock, name="QEMU", deadline=START_SECONDS, recorder=self.recorder
            )
        except QmpError as error:
            # Its exit, which is awaited elsewhere, has the better explanation.
            _log.info("%s", error)
            self._feed(Lost())
            return
        self._monitor = monitor
        self._spawn(self._read_events(monitor), "qemu's events")
        self._multiplexer = Multiplexer(monitor, self.recorder, broadcast=self._broadcast)
        try:
            # QEMU has made its sockets before it answers; a machine without a serial port has none here.
            with contextlib.suppress(FileNotFoundError):
                await self._console.attach(os.path.join(run_dir, names.SERIAL_SOCKET))
            with contextlib.suppress(FileNotFoundError):
                await self._agent.attach(os.path.join(run_dir, names.AGENT_SOCKET))
                self._spawn(self._agent.run(), "agent")
            for command in ready.commands:
                await monitor.execute(command.execute, command.arguments)
        except (QmpError, OSError) as error:
            self._feed(CommandFailed("setting the machine up", str(error)))
            return
        self._feed(Connected())

    async def _read_events(self, monitor: Monitor) -> None:
        async for event in monitor.events():
            self._tell_agent(event)
            self._feed(event)
        self._feed(Lost())

    def _tell_agent(self, event: Event) -> None:
        match event:
            case VserportChange(id=port, open=is_open) if port == _AGENT_PORT:
                self._agent.port(is_open=is_open)
            case Stop():
                self._agent.vcpus(run=False)
            case Resume():
                self._agent.vcpus(run=True)
            case _:
                pass

    async def _await_exit(self, qemu: process.Qemu) -> None:
        code = await qemu.wait()
        self._agent.close()
        if self._monitor is not None:
            # The reason is in the last events: QEMU's exit code is 0 for nearly all of them.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self._monitor.closed
            await asyncio.sleep(0)
        self._feed(Exited(code, qemu.tail()))


def _about(
    interface: str, on_lease: Callable[[str, LeaseEvent], None]
) -> Callable[[LeaseEvent], None]:
    return lambda event: on_lease(interface, event)


def _fds_for_qemu(
    monitor: socket.socket, attachments: tuple[Attachment, ...], fds: Descriptors
) -> dict[int, int]:
    """Number in QEMU -> our descriptor; they are `process.start`'s to close."""
    given = {MONITOR_FD: monitor.detach()}
    taps, vhosts = tap_numbers(attachments), vhost_numbers(attachments)
    for attachment in attachments:
        name = attachment.interface
        pairs = (
            *zip(taps[name], attachment.tap_fds, strict=True),
            *zip(vhosts[name], attachment.vhost_fds, strict=True),
        )
        given |= {number: fds.take(position) for number, position in pairs}
    return given
