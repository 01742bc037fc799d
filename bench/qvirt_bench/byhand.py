"""The baseline: the very command line that a launcher made, started by hand in the same image, with a monitor to say ``cont`` on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from qvirt_bench import pod, smaps
from qvirt_crds import names
from qvirt_crds.report import Accel
from qvirt_crds.sync import SyncArguments
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
        return smaps.qemu_of(self.process.pid)

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
async def template(
    root: Path, arguments: SyncArguments, *, disks: Path = pod.DEMO_DISK.parent
) -> AsyncIterator[Template]:
    """Have a launcher start the guest, to take its command line; and once more, paused, to take its fresh overlays.

    A paused one has another command line: its firmware waits for somebody at the screen.
    """
    with tempfile.TemporaryDirectory(prefix="qvirt-bench-") as kept:
        async with pod.started(root, disks=disks) as one:
            await one.sync(arguments)
            report = await one.running()
        paused = msgspec.structs.replace(arguments.vmi.spec, start_strategy="Paused")
        vmi = msgspec.structs.replace(arguments.vmi, spec=paused)
        async with pod.started(root, disks=disks) as one:
            await one.sync(msgspec.structs.replace(arguments, vmi=vmi))
            await one.phase("Paused")
            shutil.copytree(one.run_dir / "disks", Path(kept) / "disks")
        yield Template(argv=report.argv, disks=str(Path(kept) / "disks"))


@contextlib.asynccontextmanager
async def started(
    root: Path, made: Template, *, disks: Path = pod.DEMO_DISK.parent, extra: Sequence[str] = ()
) -> AsyncIterator[Machine]:
    """The machine, standing still, its monitor connected; gone afterwards."""

    def copy_disks(run_dir: Path) -> None:
        shutil.copytree(made.disks, run_dir / "disks")

    async with launched(root, (*made.argv, *extra), copy_disks, disks=disks) as machine:
        yield machine


@contextlib.asynccontextmanager
async def launched(
    root: Path,
    argv: Sequence[str],
    prepare: Callable[[Path], None],
    *,
    disks: Path = pod.DEMO_DISK.parent,
    netns: str = "",
    user: str = f"{names.RUNTIME_UID}:{names.RUNTIME_UID}",
    devices: Sequence[str] = (),
) -> AsyncIterator[Machine]:
    """Any command line with ``-S`` and the monitor on `MONITOR_FD`, started in the image; gone afterwards.

    :param prepare: makes what it needs in ``disks`` of its run directory, which it sees as ``/run/qvirt``.
    """
    with tempfile.TemporaryDirectory(prefix="qvirt-bench-") as name:
        directory = Path(name)
        pod.furnish(root, directory)
        prepare(directory / "run")
        for path in (directory / "run").rglob("*"):
            os.chown(path, names.RUNTIME_UID, names.RUNTIME_UID)
        ours, theirs = socket.socketpair()
        begun = time.monotonic()
        with theirs:
            process = await pod.spawn(
                *(root, directory, disks, argv),
                fds={MONITOR_FD: theirs.fileno()},
                netns=netns,
                user=user,
                devices=devices,
            )
        machine = Machine(process, directory, begun)
        try:
            machine.monitor = await Monitor.connect(ours, name="QEMU by hand", deadline=60)
            yield machine
        finally:
            if machine.monitor is not None:
                await machine.monitor.aclose()
            await pod.end(process)


def board(accel: Accel) -> tuple[str, ...]:
    """QEMU and a machine without disks and network, as an administrator would write it for the demo guest.

    One who knows that an emulated guest's network may stand still if it has no place for a second CPU (`qvirt_launcher.cpu`).
    """
    return (
        "qemu-system-x86_64",
        *("-name", "hand,debug-threads=on", "-S"),
        *("-accel", accel, "-machine", "q35", "-cpu", "host" if accel == "kvm" else "max"),
        *("-smp", "cpus=1,maxcpus=2", "-m", "64"),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-chardev", f"socket,id=qmp,fd={MONITOR_FD}", "-mon", "chardev=qmp,mode=control"),
        *("-serial", f"unix:/run/qvirt/{names.SERIAL_SOCKET},server=on,wait=off"),
    )


def overlay(run_dir: Path, name: str, base: Path) -> None:
    """A fresh qcow2 in the run directory's ``disks`` over an image that QEMU sees in ``/disks``."""
    (run_dir / "disks").mkdir(exist_ok=True)
    # First over the file as it is seen from here, which gives the size, then its name as QEMU sees it.
    path = str(run_dir / "disks" / f"{name}.qcow2")
    for command in (
        ("create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", path),
        ("rebase", "-q", "-u", "-b", f"/disks/{base.name}", "-F", "qcow2", path),
    ):
        subprocess.run(["qemu-img", *command], check=True, timeout=30)
