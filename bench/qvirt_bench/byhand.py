"""The baseline: the very command line that a launcher made, started by hand in the same image, with a monitor to say ``cont`` on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from qvirt_bench import pod, smaps
from qvirt_bench.errors import BenchError
from qvirt_crds import names
from qvirt_launcher.fds import MONITOR_FD
from qvirt_qmp.client import Monitor


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest was started with: its command line, and a copy of its overlays as they were before it ran."""

    argv: tuple[str, ...]
    disks: str


class Machine:
    """A QEMU that was started by `started`. It stands still until `cont`."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path, begun: float) -> None:
        self.process = process
        self.run_dir = directory / "run"
        self.begun = begun
        self._log = directory / "log"
        self.monitor: Monitor | None = None

    @property
    def qemu(self) -> int:
        """QEMU's pid, seen from here."""
        for pid, name in smaps.descendants(self.process.pid).items():
            if name.startswith("qemu-system"):
                return pid
        raise BenchError(f"QEMU is gone: {self._log.read_text(errors='replace')}")

    async def run(self) -> None:
        """Let it run; it does when this returns."""
        assert self.monitor is not None
        await self.monitor.execute("cont")

    @contextlib.asynccontextmanager
    async def console(self) -> AsyncIterator[asyncio.StreamReader]:
        """Its serial console, from its first byte on if this comes before `run`."""
        path = str(self.run_dir / names.SERIAL_SOCKET)
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            yield reader
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def template(root: Path, arguments: object) -> AsyncIterator[Template]:
    """Have a launcher start the guest once, paused, to take its command line and its fresh overlays."""
    with tempfile.TemporaryDirectory(prefix="qvirt-bench-") as kept:
        async with pod.started(root) as one:
            monitor = await one.connect()
            sent = msgspec.to_builtins(arguments)
            sent["vmi"]["spec"]["startStrategy"] = "Paused"
            await monitor.execute("vm-sync", sent)
            report = await one.phase("Paused", "Running")
            shutil.copytree(one.run_dir / "disks", Path(kept) / "disks")
        yield Template(argv=report.argv, disks=str(Path(kept) / "disks"))


@contextlib.asynccontextmanager
async def started(
    root: Path, made: Template, *, disks: Path = pod.DEMO_DISK.parent, extra: Sequence[str] = ()
) -> AsyncIterator[Machine]:
    """The machine, standing still, its monitor connected; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="qvirt-bench-") as name:
        directory = Path(name)
        pod.furnish(root, directory)
        shutil.copytree(made.disks, directory / "run" / "disks")
        for path in (directory / "run" / "disks", *(directory / "run" / "disks").iterdir()):
            os.chown(path, names.RUNTIME_UID, names.RUNTIME_UID)
        ours, theirs = socket.socketpair()
        begun = time.monotonic()
        with theirs:
            process = await pod.spawn(
                root, directory, disks, (*made.argv, *extra), fds={MONITOR_FD: theirs.fileno()}
            )
        machine = Machine(process, directory, begun)
        try:
            machine.monitor = await Monitor.connect(ours, name="QEMU by hand", deadline=60)
            yield machine
        finally:
            if machine.monitor is not None:
                await machine.monitor.aclose()
            await pod.end(process)
