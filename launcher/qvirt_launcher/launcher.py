"""One guest's life, acted out: feeds `lifecycle` with what happens and does what it says. Holds no decision of its own.

Everything runs in one event loop in the main thread. Inputs are fed from callbacks and tasks, one at a time and to the end;
effects that wait become tasks of one group, so that a bug in any of them ends the launcher, and with it QEMU.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Final, assert_never

from qvirt_crds import names
from qvirt_crds.errors import QvirtError
from qvirt_crds.report import VmReport
from qvirt_launcher.agent import Agent
from qvirt_launcher.agent_credentials import Credentials
from qvirt_launcher.agent_exec import Programs
from qvirt_launcher.console import Console
from qvirt_launcher.guest import Descriptors, Guest
from qvirt_launcher.inputs import (
    Abandon,
    Cont,
    DeadlinePassed,
    Effect,
    Input,
    Kill,
    Launch,
    OnPowerOff,
    PowerDown,
    Prepare,
    Prepared,
    Quit,
    Refused,
    ResetMachine,
    SetDeadline,
    Synced,
    Terminate,
)
from qvirt_launcher.interfaces import Interfaces
from qvirt_launcher.job import Ready, Request
from qvirt_launcher.lifecycle import State, step
from qvirt_launcher.phases import ended
from qvirt_launcher.place import Place
from qvirt_launcher.preparer import Preparer
from qvirt_launcher.process import Children
from qvirt_launcher.removal import remove_tree
from qvirt_launcher.taken import Taken
from qvirt_netsetup.dhcp import LeaseEvent
from qvirt_qmp.multiplex import Broadcast

_log = logging.getLogger(__name__)

#: For tasks to end by themselves once QEMU has.
_WIND_UP_SECONDS: Final = 3.0


class Launcher:
    """See the module. `run` is its life; `feed` may be called from anywhere in the loop.

    :param broadcast: gets ``VM_STATUS`` events, and QEMU's own.
    """

    def __init__(
        self,
        place: Place,
        preparer: Preparer,
        children: Children,
        console: Console,
        broadcast: Broadcast,
    ) -> None:
        self.state = State()
        self.agent = Agent(self._publish)
        self.programs = Programs(self.agent.channel)
        self.guest = Guest(console, children, broadcast, self.feed, self._spawn, self.agent)
        self._place = place
        self._preparer = preparer
        self._broadcast = broadcast
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._started = time.time()
        self._running_since: float | None = None
        self._sync: Taken | None = None
        #: The message as it came, until the worker has it.
        self._message: Mapping[str, object] = {}
        self._fds = Descriptors([])
        self._ready: Ready | None = None
        self._interfaces = Interfaces()
        self._shots = 0

    async def run(self) -> State:
        """Live until the guest's life is over; returns how it ended. QEMU is gone then, and so is what was made for it."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._over.wait()
                await self._wind_up()
        finally:
            self._set_deadline(None)
            await self.guest.aclose()
            self._fds.close()
            self._remove_files()
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
        if ended(self.state.phase):
            self._over.set()

    def sync(
        self,
        arguments: Taken,
        message: Mapping[str, object],
        take_fds: Callable[[], list[int]],
    ) -> None:
        """``vm-sync``: take the guest on, unless it is ours already.

        :param message: the arguments as they came.
        :param take_fds: gives up the descriptors that came along; called only when they are kept.
        """
        if self._sync is not None or self.state.phase != "Waiting":
            return
        self._sync, self._message = arguments, message
        self._fds = Descriptors(take_fds())
        self._interfaces = Interfaces(arguments.attachments)
        spec = arguments.vmi.spec
        self.feed(
            Synced(
                grace=spec.termination_grace_period_seconds,
                acpi=arguments.vmi.has_acpi,
                start_paused=spec.start_strategy == "Paused",
                reboot_ends=spec.domain.reboot_policy == "Terminate",
            )
        )

    @property
    def identity(self) -> tuple[str, str, str] | None:
        """Namespace, name and uid of the guest; None before `sync`."""
        if self._sync is None:
            return None
        meta = self._sync.vmi.metadata
        return meta.namespace, meta.name, meta.uid

    def report(self) -> VmReport:
        """Everything there is to say now."""
        namespace, name, uid = self.identity or (self._place.namespace, self._place.name, "")
        ready = self._ready
        return VmReport(
            name=name,
            namespace=namespace,
            uid=uid,
            phase=self.state.phase,
            end_reason=self.state.end if ended(self.state.phase) else None,
            message=self.state.message,
            started=self._started,
            running_since=self._running_since,
            accel=ready.accel if ready else None,
            accel_message=ready.accel_message if ready else "",
            qemu_version=self.guest.version,
            qemu_pid=self.guest.pid,
            launcher_pid=os.getpid(),
            argv=ready.argv if ready else (),
            argv_sha256=_hash(ready.argv) if ready else "",
            interfaces=self._interfaces.report(),
            agent=self.agent.report,
        )

    async def screenshot(self, *, wake: bool) -> bytes:
        """``vm-screenshot``: the guest's screen as a PNG.

        :raise QmpError: there is none.
        """
        self._shots += 1
        path = os.path.join(self._place.run_dir, f"screen-{self._shots}.png")
        return await self.guest.screenshot(path, wake=wake)

    # --- effects ---

    def _act(self, effect: Effect) -> None:
        match effect:
            case Prepare():
                self._spawn(self._prepare(), "prepare")
            case Abandon():
                self._preparer.abandon()
            case Launch():
                self._launch()
            case Cont():
                self._spawn(self.guest.execute("cont"), "cont")
            case PowerDown():
                self._spawn(self.guest.execute("system_powerdown"), "power button")
            case Quit():
                self._spawn(self.guest.execute("quit"), "quit")
            case OnPowerOff(leave=leave):
                action = {"shutdown": "poweroff" if leave else "pause"}
                self._spawn(self.guest.execute("set-action", action), "on power-off")
            case ResetMachine():
                self._spawn(self.guest.execute("system_reset"), "reset")
            case Terminate():
                self.guest.send_signal(signal.SIGTERM)
            case Kill():
                self.guest.send_signal(signal.SIGKILL)
            case SetDeadline(seconds=seconds):
                self._set_deadline(seconds)
            case _:
                assert_never(effect)

    def _spawn(self, what: Coroutine[None, None, None], name: str) -> None:
        assert self._group is not None
        task = self._group.create_task(what, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wind_up(self) -> None:
        """QEMU is gone, so everything that waits for it ends; unless it could not be killed."""
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=_WIND_UP_SECONDS)
            for task in stuck:
                task.cancel()

    async def _prepare(self) -> None:
        request = Request(
            sync=self._message,
            pod=self._place.pod,
            run_dir=self._place.run_dir,
            disk_dir=self._place.disk_dir,
        )
        try:
            self._ready = await self._preparer.ask(request)
        except QvirtError as error:
            self.feed(Refused(str(error)))
            return
        self._message = {}
        if self._ready.accel_message:
            _log.warning("no KVM, the guest is emulated: %s", self._ready.accel_message)
        for note in self._ready.notes:
            _log.warning("%s", note)
        self.feed(Prepared())

    def _launch(self) -> None:
        assert self._sync is not None
        assert self._ready is not None
        attachments = self._sync.attachments
        self.guest.answer_dhcp(attachments, self._fds, self._leased)
        launch = self.guest.launch(self._ready, attachments, self._fds, self._place.run_dir)
        self._spawn(launch, "launch")
        if self._ready.credentials:
            keeper = Credentials(self.agent, self.programs, self._ready.credentials)
            self._spawn(keeper.run(), "access credentials")

    def _leased(self, interface: str, event: LeaseEvent) -> None:
        if self._interfaces.note(interface, event):
            verb = "took" if event.leased else "gave up"
            _log.info("interface %s: the guest %s %s", interface, verb, event.address)
            self.agent.nudge()
            self._publish()

    def _set_deadline(self, seconds: int | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(seconds, self.feed, DeadlinePassed())

    # --- telling, and leaving ---

    def _log_phase(self) -> None:
        why = (
            f" ({self.state.end}) {self.state.message}".rstrip() if ended(self.state.phase) else ""
        )
        _log.info("phase %s%s", self.state.phase, why)

    def _publish(self) -> None:
        self._broadcast("VM_STATUS", self.report(), None)

    def _remove_files(self) -> None:
        sockets = (names.SERIAL_SOCKET, names.VNC_SOCKET, names.AGENT_SOCKET)
        left = [os.path.join(self._place.run_dir, name) for name in sockets]
        for path in (*left, *(self._ready.made if self._ready else ())):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                _log.warning("%s is left behind: %s", path, error.strerror)
        if self._place.owns_disk_dir:
            remove_tree(self._place.disk_dir)


def _visible(state: State) -> tuple[object, ...]:
    return state.phase, state.message, state.end


def _hash(argv: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(argv).encode()).hexdigest()
