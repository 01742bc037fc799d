"""`qvirt run` while its guest lives: the role that virt-handler has in a cluster.

Connects the network, starts virt-launcher as a child, hands it the VM over its control socket, passes signals on, follows
its reports, and takes everything down again, last made first. What it shows and when it detaches is the command's business
(`Watcher`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from qvirt_crds.names import CONTROL_SOCKET
from qvirt_crds.report import AccelChoice, KernelFiles, LocalVolume, VmReport
from qvirt_crds.sync import SyncArguments
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher import native, process, uplink
from qvirt_launcher.account import Account
from qvirt_launcher.errors import HostError
from qvirt_launcher.rundir import Record, RunDir, start_time
from qvirt_qmp.client import Monitor, connect_unix
from qvirt_qmp.errors import ConnectFailed, QmpError
from qvirt_qmp.events import Event, Unknown

#: From the launcher's start to its control socket, in seconds. It imports, spawns a worker and drops privileges first.
_SOCKET_SECONDS: Final = 30.0
_SYNC_SECONDS: Final = 30.0
_PAUSE: Final = 0.02
#: Beyond the guest's grace period, before a launcher that was told to stop is killed. Its own ladder takes 20 seconds.
_STOP_MARGIN: Final = 40
_TAIL: Final = 4096

Milestone = Literal["running", "ip"]


class Watcher(Protocol):
    """Who wants to know."""

    def note(self, text: str) -> None:
        """A sentence for the user."""

    def report(self, report: VmReport) -> None:
        """The launcher's newest report; always the full state."""

    def reached(self, report: VmReport) -> None:
        """The guest has come as far as was waited for. Called once."""

    def stopping(self, hurry: bool) -> None:
        """A signal was passed on; ``hurry`` from the second one on."""

    async def aclose(self) -> None:
        """The launcher has ended."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found out before."""

    vmi: VirtualMachineInstance
    volumes: tuple[LocalVolume, ...]
    kernel: KernelFiles | None
    uplink: uplink.Uplink
    account: Account
    accel: AccelChoice
    #: Where netsetup keeps its state, and the launcher its verdict on KVM.
    state_dir: Path
    cache_dir: Path
    #: The launcher's messages go there.
    log: Path
    wait: Milestone
    timeout: float

    @property
    def name(self) -> str:
        return f"{self.vmi.metadata.namespace or 'default'}/{self.vmi.metadata.name}"

    @property
    def grace(self) -> int:
        given = self.vmi.spec.termination_grace_period_seconds
        return 30 if given is None else given


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended."""

    report: VmReport
    #: Of the launcher; below zero for a signal.
    code: int
    #: The guest did not come far enough in time and was stopped for that.
    timed_out: bool = False
    #: A signal came before the guest ran.
    interrupted: bool = False
    #: The launcher's last words.
    tail: str = ""


async def supervise(job: Job, held: RunDir, watcher: Watcher) -> Ending:
    """Run the guest to its end.

    :raise QvirtError: it could not be started; nothing is left behind but the run directory, which the caller removes.
    """
    # Not by a thread for each child: see _passing_threads.
    process.watch_children_by_pidfd()
    signals = _Signals(job, watcher)
    with signals.caught():
        try:
            return await _run(job, held, watcher, signals)
        except asyncio.CancelledError:
            if not signals.cancelled:
                raise
            return Ending(report=VmReport(), code=0, interrupted=True)


async def _run(job: Job, held: RunDir, watcher: Watcher, signals: _Signals) -> Ending:
    async with contextlib.AsyncExitStack() as stack:
        with _passing_threads():
            attached = await stack.enter_async_context(
                uplink.attached(job.uplink, job.vmi, job.state_dir, job.account, watcher.note)
            )
        launcher = await stack.enter_async_context(_launcher(job, held))
        _record(job, held, launcher.pid)
        monitor = await _connect(job, held, launcher)
        stack.push_async_callback(monitor.aclose)
        signals.launcher = launcher
        follower = _Follower(job, watcher, signals)
        await _sync(job, monitor, attached)
        try:
            report = await follower.follow(monitor)
            code = await launcher.wait()
        finally:
            await watcher.aclose()
        return Ending(
            report=report,
            code=code,
            timed_out=follower.timed_out,
            interrupted=signals.count > 0 and report.end_reason is None,
            tail=_tail(job.log),
        )


@contextlib.contextmanager
def _passing_threads() -> Iterator[None]:
    """Threads that are started inside (`asyncio.to_thread`) have ended afterwards.

    PR_SET_PDEATHSIG goes by thread, and a child is handed from thread to thread as a killed process's threads die one by
    one: with three of them the launcher would get three SIGTERMs, of which the second means "hurry".
    """
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor()
    loop.set_default_executor(executor)
    try:
        yield
    finally:
        executor.shutdown()
        loop.set_default_executor(ThreadPoolExecutor())


class _Signals:
    """SIGINT, SIGTERM and SIGHUP: before the guest is handed over they end everything, then they go to the launcher."""

    def __init__(self, job: Job, watcher: Watcher) -> None:
        self.launcher: asyncio.subprocess.Process | None = None
        self.cancelled = False
        self.count = 0
        self._job = job
        self._watcher = watcher
        self._main = asyncio.current_task()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Tell the launcher to end its guest; more than once hurries it."""
        launcher = self.launcher
        if launcher is None or launcher.returncode is not None:
            return
        if not self.count:
            deadline = self._job.grace + _STOP_MARGIN
            asyncio.get_running_loop().call_later(deadline, _send, launcher, signal.SIGKILL)
        self.count += 1
        _send(launcher, signal.SIGTERM)

    def _on_signal(self) -> None:
        if self.launcher is not None:
            self._watcher.stopping(hurry=self.count > 0)
            self.stop()
        elif not self.cancelled and self._main is not None:
            self.cancelled = True
            self._main.cancel()


class _Follower:
    """Follows reports to the last one."""

    def __init__(self, job: Job, watcher: Watcher, signals: _Signals) -> None:
        self.timed_out = False
        self._job = job
        self._watcher = watcher
        self._signals = signals
        self._reached = False

    async def follow(self, monitor: Monitor) -> VmReport:
        """The last report before the launcher hung up."""
        events = monitor.events()
        last = VmReport()
        try:
            async with asyncio.timeout(self._job.timeout) as deadline:
                async for event in events:
                    last = self._take(event, last)
                    if self._reached:
                        deadline.reschedule(None)
        except TimeoutError:
            self.timed_out = True
            self._signals.stop()
            async for event in events:
                last = self._take(event, last)
        return last

    def _take(self, event: Event, last: VmReport) -> VmReport:
        report = decode_report(event)
        if report is None:
            return last
        self._watcher.report(report)
        if not self._reached and has_reached(report, self._job.wait):
            self._reached = True
            self._watcher.reached(report)
        return report


def decode_report(event: Event) -> VmReport | None:
    """The report in a ``VM_STATUS`` event; None for any other event."""
    if not isinstance(event, Unknown) or event.name != "VM_STATUS":
        return None
    try:
        return msgspec.convert(event.data, VmReport)
    except msgspec.ValidationError:
        return None


def has_reached(report: VmReport, milestone: Milestone) -> bool:
    """Whether the guest runs, or has all the addresses that it was offered."""
    if report.phase not in {"Running", "Paused"}:
        return False
    match milestone:
        case "running":
            return True
        case "ip":
            return bool(report.interfaces) and all(i.leased for i in report.interfaces)


@contextlib.asynccontextmanager
async def _launcher(job: Job, held: RunDir) -> AsyncIterator[asyncio.subprocess.Process]:
    log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        held.hand_over(job.account)
        child = await asyncio.create_subprocess_exec(
            *_launcher_argv(job, held),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(held.lock,),
            # A terminal's Ctrl-C comes to us, and we pass it on; it must not arrive twice.
            start_new_session=True,
            preexec_fn=_as_child(),
        )
    finally:
        os.close(log)
    try:
        yield child
    finally:
        # It has ended by now, unless something went wrong on the way; QEMU dies with it.
        if child.returncode is None:
            child.kill()
        await child.wait()


def _launcher_argv(job: Job, held: RunDir) -> list[str]:
    # -P: nothing is imported from the directory that we were started in.
    argv = [sys.executable, "-P", "-m", "qvirt_launcher.main", "--run-dir", str(held.path)]
    argv += ["--disk-dir", str(held.disks), "--cache-dir", str(job.cache_dir)]
    return [*argv, "--user", str(job.account.uid)] if os.geteuid() == 0 else argv


def _as_child() -> Callable[[], None]:
    parent = os.getpid()

    def between_fork_and_exec() -> None:
        # When we are killed the launcher shuts its guest down in good order.
        native.set_death_signal(signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return between_fork_and_exec


def _record(job: Job, held: RunDir, launcher: int) -> None:
    us = os.getpid()
    held.write(
        Record(
            namespace=job.vmi.metadata.namespace or "default",
            name=job.vmi.metadata.name,
            supervisor=us,
            supervisor_start=start_time(us),
            launcher=launcher,
            launcher_start=start_time(launcher),
            grace=job.grace,
            user=job.account.name,
            network=job.uplink.choice,
            log=str(job.log),
        )
    )


async def _connect(job: Job, held: RunDir, launcher: asyncio.subprocess.Process) -> Monitor:
    """The launcher's control socket, as soon as it is there."""
    path = str(held.path / CONTROL_SOCKET)
    try:
        async with asyncio.timeout(_SOCKET_SECONDS):
            while launcher.returncode is None:
                try:
                    return await connect_unix(path, name="the launcher")
                except ConnectFailed:
                    await asyncio.sleep(_PAUSE)
    except TimeoutError:
        raise HostError(
            f"{job.name}: the launcher gives no sign of life; its log: {_tail(job.log)}"
        ) from None
    raise HostError(
        f"{job.name}: the launcher doesn't start: {_tail(job.log) or 'it says nothing'}"
    )


async def _sync(job: Job, monitor: Monitor, attached: uplink.Attached) -> None:
    arguments = SyncArguments(
        vmi=job.vmi,
        attachments=attached.attachments,
        volumes=job.volumes,
        kernel=job.kernel,
        accel=job.accel,
    )
    try:
        await monitor.execute(
            "vm-sync",
            msgspec.to_builtins(arguments),
            fds=attached.fds,
            deadline=_SYNC_SECONDS,
        )
    except QmpError as error:
        raise HostError(f"{job.name}: the launcher refused the VM: {error}") from error
    finally:
        for fd in attached.fds:
            os.close(fd)


def _send(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)


def _tail(log: Path) -> str:
    """The last line or so of the launcher's messages."""
    try:
        content = log.read_bytes()[-_TAIL:].decode(errors="replace")
    except OSError:
        return ""
    return " / ".join(line.strip() for line in content.splitlines()[-3:] if line.strip())
