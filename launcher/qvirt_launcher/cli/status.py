"""The few lines that ``qvirt run`` shows on standard error while its guest lives, and its console if that was asked for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from qvirt_crds.names import CONSOLE_SOCKET
from qvirt_crds.report import VmReport
from qvirt_launcher.cli.terminal import Attachment, local_console, raw_mode
from qvirt_launcher.supervisor import Job
from qvirt_qmp.errors import QmpError


class Status:
    """Says each thing once, when it becomes true.

    :param console: show the serial console from the guest's start on.
    :param leave: goes into the background; None in the foreground.
    """

    def __init__(
        self, job: Job, run_dir: Path, console: bool, leave: Callable[[], None] | None
    ) -> None:
        self._job = job
        self._console = str(run_dir / CONSOLE_SOCKET) if console else ""
        self._leave = leave
        self._said: set[str] = set()
        self._viewer: asyncio.Task[None] | None = None

    def note(self, text: str) -> None:
        """A sentence about this VM."""
        # The carriage return is for a terminal in raw mode; elsewhere it isn't seen.
        end = "\r\n" if self._viewer is not None else "\n"
        print(f"qvirt: {self._job.name}: {text}", end=end, file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """What went wrong with this VM, as one line."""
        line = " ".join(text.split("\n"))
        print(f"qvirt: error: {self._job.name}: {line}", file=sys.stderr, flush=True)

    def report(self, report: VmReport) -> None:
        """See `supervisor.Watcher`."""
        if report.phase in {"Starting", "Running", "Paused"} and self._console:
            self._attach()
        if report.phase in {"Running", "Paused"}:
            self._once("running", _running(report))
            for interface in report.interfaces:
                if interface.leased:
                    address = " and ".join(filter(None, (interface.address, interface.address6)))
                    self._once(f"lease {interface.name}", f"the guest has taken {address}")

    def reached(self, _: VmReport) -> None:
        """See `supervisor.Watcher`."""
        name = self._job.vmi.metadata.name
        if self._leave is not None:
            self.note(f"`qvirt console {name}` attaches, `qvirt stop {name}` shuts down")
            self._leave()
        elif self._console:
            self.note("Ctrl-] leaves the console")
        else:
            self.note(f"`qvirt console {name}` attaches, Ctrl-C shuts down")

    def stopping(self, hurry: bool) -> None:
        """See `supervisor.Watcher`."""
        limit = f"shutting down, {self._job.grace} s at most; once more hurries"
        self.note("hurrying" if hurry else limit)

    async def aclose(self) -> None:
        """See `supervisor.Watcher`."""
        if self._viewer is not None:
            # The console's last words come before its end, which the launcher has brought about by now.
            _, late = await asyncio.wait({self._viewer}, timeout=1.0)
            for task in late:
                task.cancel()
                await asyncio.wait({task})

    def _once(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self.note(text)

    def _attach(self) -> None:
        if self._viewer is None:
            self._viewer = asyncio.create_task(self._view(), name="console")

    async def _view(self) -> None:
        try:
            with raw_mode():
                how = await Attachment(lambda: local_console(self._console)).run()
        except QmpError as error:
            self._viewer = None
            self.note(str(error))
            self._console = ""
            return
        if how == "escape":
            self._console = ""
            self._viewer = None
            self.note("left the console; the guest goes on, Ctrl-C shuts it down")


def _running(report: VmReport) -> str:
    how = {"kvm": "with KVM", "tcg": "in emulation (TCG)", None: ""}[report.accel]
    why = f": {report.accel_message}" if report.accel_message else ""
    state = "runs" if report.phase == "Running" else "is paused"
    return f"the guest {state} {how}{why}".rstrip()
