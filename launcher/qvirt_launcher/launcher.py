"""One guest's life, acted out: feeds `lifecycle` with what happens and does what it says. Holds no decision of its own.

Everything runs in one event loop in the main thread. Inputs are fed from callbacks and tasks, one at a time and to the end;
effects that wait become tasks of one group, so that a bug in any of them ends the launcher, and with it QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Final, assert_never

import msgspec

from qvirt_crds import names
from qvirt_crds.errors import QvirtError
from qvirt_crds.report import Attachment, SyncArguments, VmReport
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher import process
from qvirt_launcher.console import Console
from qvirt_launcher.fds import MONITOR_FD, tap_numbers
from qvirt_launcher.inputs import (
    Abandon,
    CommandFailed,
    Connected,
    Cont,
    DeadlinePassed,
    Effect,
    Exited,
    Input,
    Kill,
    Launch,
    Lost,
    PowerDown,
    Prepare,
    Prepared,
    Quit,
    Refused,
    SetDeadline,
    Synced,
    Terminate,
)
from qvirt_launcher.interfaces import Interfaces
from qvirt_launcher.job import Ready, Request
from qvirt_launcher.lifecycle import START_SECONDS, State, ended, step
from qvirt_launcher.preparer import Preparer
from qvirt_netsetup.dhcp import LeaseEvent, Responder
from qvirt_qmp.client import Monitor
from qvirt_qmp.errors import QmpError
from qvirt_qmp.multiplex import Broadcast, Multiplexer
from qvirt_qmp.recorder import FlightRecorder
from qvirt_qmp.session import Call

_log = logging.getLogger(__name__)

#: After QEMU's exit: for the events that it sent before to be read from the socket.
_DRAIN_SECONDS: Final = 2.0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where this launcher lives, and what it is called until its guest says so."""

    run_dir: str
    disk_dir: str
    #: Whether `disk_dir` was made for this guest, and so goes with it, whatever is in it.
    owns_disk_dir: bool = False
    name: str = ""
    namespace: str = ""


class Launcher:
    """See the module. `run` is its life; `feed` may be called from anywhere in the loop.

    :param broadcast: gets ``VM_STATUS`` events, and QEMU's own.
    """

    def __init__(
        self,
        place: Place,
        preparer: Preparer,
        children: process.Children,
        console: Console,
        broadcast: Broadcast,
    ) -> None:
        self.state = State()
        self.recorder = FlightRecorder()
        self._place = place
        self._preparer = preparer
        self._children = children
        self._console = console
        self._broadcast = broadcast
        self._group: asyncio.TaskGroup | None = None
        self._over = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._started = time.time()
        self._running_since: float | None = None
        self._sync: SyncArguments | None = None
        self._fds: list[int] = []
        self._ready: Ready | None = None
        self._qemu: process.Qemu | None = None
        #: A signal for a QEMU that is just being started.
        self._doom: signal.Signals | None = None
        self._monitor: Monitor | None = None
        self._multiplexer: Multiplexer | None = None
        self._responders: list[Responder] = []
        self._interfaces = Interfaces()

    # --- for control and main ---

    async def run(self) -> State:
        """Live until the guest's life is over; returns how it ended. QEMU is gone then, and so is what was made for it."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._over.wait()
        finally:
            self._set_deadline(None)
            await self._clean_up()
        return self.state

    def feed(self, given: Input) -> None:
        """Something happened."""
        old = self.state
        self.state, effects = step(old, given)
        if self.state.phase == "Running" and self._running_since is None:
            self._running_since = time.time()
        if self.state.phase != old.phase:
            self._log_phase()
        if _visible(old) != _visible(self.state):
            self._publish()
        for effect in effects:
            self._act(effect)
        if ended(self.state):
            self._over.set()

    def sync(self, arguments: SyncArguments, take_fds: Callable[[], list[int]]) -> None:
        """``vm-sync``: take the guest on, unless it is ours already.

        :param take_fds: gives up the descriptors that came along; called only when they are kept.
        """
        if self._sync is not None or self.state.phase != "Waiting":
            return
        self._sync = arguments
        self._fds = take_fds()
        self._interfaces = Interfaces.of(arguments.attachments)
        spec = arguments.vmi.spec
        self.feed(
            Synced(
                grace=spec.termination_grace_period_seconds,
                acpi=_has_acpi(arguments.vmi),
                start_paused=spec.start_strategy == "Paused",
            )
        )

    @property
    def identity(self) -> tuple[str, str, str] | None:
        """Namespace, name and uid of the guest; None before `sync`."""
        if self._sync is None:
            return None
        meta = self._sync.vmi.metadata
        return meta.namespace, meta.name, meta.uid

    async def forward(self, call: Call) -> object:
        """A command for QEMU itself, under the policy.

        :raise QmpError: refused, failed, or there is no QEMU (yet, or any more).
        """
        if self._multiplexer is None:
            raise NoMachine(call.command, self.state.phase)
        return await self._multiplexer.forward(call)

    def report(self) -> VmReport:
        """Everything there is to say now."""
        meta = self._sync.vmi.metadata if self._sync else None
        ready = self._ready
        return VmReport(
            name=meta.name if meta else self._place.name,
            namespace=meta.namespace if meta else self._place.namespace,
            uid=meta.uid if meta else "",
            phase=self.state.phase,
            end_reason=self.state.end if ended(self.state) else None,
            message=self.state.message,
            started=self._started,
            running_since=self._running_since,
            accel=ready.accel if ready else None,
            accel_message=ready.accel_message if ready else "",
            qemu_version=ready.qemu_version if ready else "",
            qemu_pid=self._qemu.pid if self._qemu and not ended(self.state) else None,
            launcher_pid=os.getpid(),
            argv=ready.argv if ready else (),
            argv_sha256=hashlib.sha256("\0".join(ready.argv).encode()).hexdigest() if ready else "",
            interfaces=self._interfaces.report(),
        )

    # --- effects ---

    def _act(self, effect: Effect) -> None:
        match effect:
            case Prepare():
                self._spawn(self._prepare(), "prepare")
            case Abandon():
                self._preparer.abandon()
            case Launch():
                self._spawn(self._launch(), "launch")
            case Cont():
                self._spawn(self._execute("cont"), "cont")
            case PowerDown():
                self._spawn(self._execute("system_powerdown"), "power button")
            case Quit():
                self._spawn(self._execute("quit"), "quit")
            case Terminate():
                self._signal(signal.SIGTERM)
            case Kill():
                self._signal(signal.SIGKILL)
            case SetDeadline(seconds=seconds):
                self._set_deadline(seconds)
            case _:
                assert_never(effect)

    def _spawn(self, what: Coroutine[None, None, None], name: str) -> None:
        assert self._group is not None
        self._group.create_task(what, name=name)

    async def _prepare(self) -> None:
        assert self._sync is not None
        request = Request(
            vmi=self._sync.vmi,
            attachments=self._sync.attachments,
            volumes=self._sync.volumes,
            kernel=self._sync.kernel,
            accel=self._sync.accel,
            run_dir=self._place.run_dir,
            disk_dir=self._place.disk_dir,
        )
        try:
            self._ready = await self._preparer.ask(request)
        except QvirtError as error:
            self.feed(Refused(str(error)))
            return
        if self._ready.accel_message:
            _log.warning("no KVM, the guest is emulated: %s", self._ready.accel_message)
        for note in self._ready.notes:
            _log.warning("%s", note)
        self.feed(Prepared())

    async def _launch(self) -> None:
        assert self._ready is not None
        _log.info("starting %s", list(self._ready.argv))
        ours, theirs = socket.socketpair()
        try:
            self._start_responders()
            self._qemu = await process.start(
                self._ready.argv, self._fds_for_qemu(theirs), self._children
            )
        except (QvirtError, OSError) as error:
            ours.close()
            self.feed(Refused(str(error), "QemuFailed"))
            return
        self._spawn(self._await_exit(self._qemu), "qemu's exit")
        if self._doom is not None:
            self._qemu.send_signal(self._doom)
        await self._connect(ours)

    def _fds_for_qemu(self, monitor: socket.socket) -> dict[int, int]:
        """Number in QEMU -> our descriptor; they are `process.start`'s to close."""
        assert self._sync is not None
        fds = {MONITOR_FD: monitor.detach()}
        numbers = tap_numbers(self._sync.attachments)
        for attachment in self._sync.attachments:
            for number, position in zip(
                numbers[attachment.interface], attachment.tap_fds, strict=True
            ):
                fds[number] = self._take_fd(position)
        return fds

    def _take_fd(self, position: int) -> int:
        handle = self._fds[position]
        self._fds[position] = -1
        return handle

    def _start_responders(self) -> None:
        assert self._sync is not None
        loop = asyncio.get_running_loop()
        for attachment in self._sync.attachments:
            if attachment.dhcp_fd is None or attachment.lease is None:
                continue
            responder = Responder(
                self._take_fd(attachment.dhcp_fd),
                attachment.lease,
                on_lease=lambda event, a=attachment: self._leased(a, event),  # type: ignore[misc]
            )
            self._responders.append(responder)
            responder.start(loop)

    def _leased(self, attachment: Attachment, event: LeaseEvent) -> None:
        if self._interfaces.note(attachment.interface, event):
            _log.info(
                "interface %s: the guest %s %s",
                attachment.interface,
                "took" if event.leased else "gave up",
                event.address,
            )
            self._publish()

    async def _connect(self, sock: socket.socket) -> None:
        try:
            monitor = await Monitor.connect(
                sock, name="QEMU", deadline=START_SECONDS, recorder=self.recorder
            )
        except QmpError as error:
            # Its exit, which is awaited elsewhere, has the better explanation.
            _log.info("%s", error)
            self.feed(Lost())
            return
        self._monitor = monitor
        self._spawn(self._read_events(monitor), "qemu's events")
        self._multiplexer = Multiplexer(monitor, self.recorder, broadcast=self._broadcast)
        try:
            await self._attach_console()
            assert self._ready is not None
            for command in self._ready.commands:
                await monitor.execute(command.execute, command.arguments)
        except (QmpError, OSError) as error:
            self.feed(CommandFailed("setting the machine up", str(error)))
            return
        self.feed(Connected())

    async def _attach_console(self) -> None:
        # QEMU has made its sockets before it answers on the monitor; a machine without a serial port has none here.
        with contextlib.suppress(FileNotFoundError):
            await self._console.attach(os.path.join(self._place.run_dir, names.SERIAL_SOCKET))

    async def _read_events(self, monitor: Monitor) -> None:
        async for event in monitor.events():
            self.feed(event)
        self.feed(Lost())

    async def _await_exit(self, qemu: process.Qemu) -> None:
        code = await qemu.wait()
        if self._monitor is not None:
            # The reason is in the last events: QEMU's exit code is 0 for nearly all of them.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self._monitor.closed
            await asyncio.sleep(0)
        self.feed(Exited(code, qemu.tail()))

    async def _execute(self, command: str) -> None:
        if self._monitor is None:
            return
        try:
            await self._monitor.execute(command)
        except QmpError as error:
            _log.info("%s", error)
            self.feed(CommandFailed(command, str(error)))

    def _signal(self, number: signal.Signals) -> None:
        self._doom = number
        if self._qemu is not None:
            self._qemu.send_signal(number)

    def _set_deadline(self, seconds: int | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(seconds, self.feed, DeadlinePassed())

    # --- telling, and leaving ---

    def _log_phase(self) -> None:
        why = f" ({self.state.end}) {self.state.message}".rstrip() if ended(self.state) else ""
        _log.info("phase %s%s", self.state.phase, why)

    def _publish(self) -> None:
        self._broadcast("VM_STATUS", self.report(), None)

    async def _clean_up(self) -> None:
        if self._multiplexer is not None:
            self._multiplexer.close()
        if self._monitor is not None:
            await self._monitor.aclose()
        for responder in self._responders:
            responder.close()
        for handle in self._fds:
            if handle >= 0:
                os.close(handle)
        sockets = (names.SERIAL_SOCKET, names.VNC_SOCKET, names.AGENT_SOCKET)
        left = [os.path.join(self._place.run_dir, name) for name in sockets]
        for path in (*left, *(self._ready.made if self._ready else ())):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        if self._place.owns_disk_dir:
            shutil.rmtree(self._place.disk_dir, ignore_errors=True)


class NoMachine(QmpError):
    """There is no QEMU that a command could go to."""

    reason = "MachineNotThere"

    def __init__(self, command: str, phase: str) -> None:
        super().__init__(f"{command}: QEMU does not run (phase {phase}); ask vm-query")


def _visible(state: State) -> tuple[object, ...]:
    return state.phase, state.message, state.end


def _has_acpi(vmi: VirtualMachineInstance) -> bool:
    features = vmi.spec.domain.features
    acpi = features.acpi if features is not None else None
    return acpi is None or acpi.enabled is not False
