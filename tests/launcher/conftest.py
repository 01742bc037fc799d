"""A virt-launcher as its handler meets it: a child process, its control socket, its reports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.report import Attachment, LocalVolume, VmReport
from qvirt_crds.sync import SyncArguments
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_qmp.client import Monitor, connect_unix
from qvirt_qmp.errors import ConnectFailed

DEADLINE = 60.0
#: Exists everywhere, owns nothing.
USER = "nobody"
UUID = "5d307ca9-b3ef-428c-8861-06e72d69f223"


def firmware_only(
    *volumes: Mapping[str, object], interfaces: bool = False, **spec: object
) -> VirtualMachineInstance:
    """A guest without an operating system: its firmware finds nothing to boot and ignores its power button."""
    devices: dict[str, object] = {
        "autoattachPodInterface": interfaces,
        "autoattachGraphicsDevice": False,
        "disks": [{"name": v["name"], "disk": {"bus": "virtio"}} for v in volumes],
    }
    vmi = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "tiny", "uid": "one"},
        "spec": {
            "domain": {
                "memory": {"guest": "32Mi"},
                "devices": devices,
                "firmware": {"bootloader": {"bios": {"useSerial": True}}},
            },
            "volumes": list(volumes),
            **spec,
        },
    }
    return apply_defaults(msgspec.convert(vmi, VirtualMachineInstance), new_uuid=lambda: UUID)


class Launched:
    """A launcher that was started by a test. Whatever is left of it is killed at the test's end."""

    def __init__(self, process: asyncio.subprocess.Process, run_dir: Path, log: Path) -> None:
        self.process = process
        self.run_dir = run_dir
        self.log = log
        self.monitors: list[Monitor] = []

    @property
    def text(self) -> str:
        """What it logged."""
        return self.log.read_text(errors="replace")

    async def connect(self, name: str = "launcher.sock") -> Monitor:
        """A session on one of its sockets, as soon as it listens."""
        async with asyncio.timeout(DEADLINE):
            while self.process.returncode is None:
                try:
                    monitor = await connect_unix(str(self.run_dir / name))
                except ConnectFailed:
                    await asyncio.sleep(0.02)
                else:
                    self.monitors.append(monitor)
                    return monitor
        raise AssertionError(f"the launcher ended: {self.text}")

    async def sync(
        self,
        vmi: VirtualMachineInstance,
        *volumes: LocalVolume,
        attachments: tuple[Attachment, ...] = (),
        fds: tuple[int, ...] = (),
    ) -> Monitor:
        """Hand a guest over; returns the session."""
        monitor = await self.connect()
        arguments = SyncArguments(vmi=vmi, volumes=volumes, attachments=attachments, accel="tcg")
        await monitor.execute("vm-sync", msgspec.to_builtins(arguments), fds=fds)
        return monitor

    async def report(self, *phases: str) -> VmReport:
        """The report, as soon as the phase is one of these (any, when none is named)."""
        monitor = self.monitors[0]
        async with asyncio.timeout(DEADLINE):
            while True:
                report = msgspec.convert(await monitor.execute("vm-query"), VmReport)
                if not phases or report.phase in phases:
                    return report
                await asyncio.sleep(0.02)

    async def last_report(self) -> VmReport:
        """The last report that it told before it hung up."""
        last: object = None
        async with asyncio.timeout(DEADLINE):
            async for event in self.monitors[0].events():
                if getattr(event, "name", "") == "VM_STATUS":
                    last = getattr(event, "data", None)
        return msgspec.convert(last, VmReport)

    async def wait(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory with a path that is short enough for sockets, and that other users may enter."""
    with tempfile.TemporaryDirectory(prefix="qv", ignore_cleanup_errors=True) as path:
        os.chmod(path, 0o755)
        yield Path(path)


Launch = Callable[..., contextlib.AbstractAsyncContextManager[Launched]]


@pytest.fixture
def launch(short_dir: Path) -> Launch:
    """Starts a launcher: ``async with launch(*options, prefix=(...), env={...}) as launched``."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs qemu-system-x86_64")

    @contextlib.asynccontextmanager
    async def launching(
        *options: str,
        prefix: tuple[str, ...] = (),
        python: tuple[str, ...] = (sys.executable, "-P"),
    ) -> AsyncIterator[Launched]:
        run_dir = short_dir / "vm"
        user = ("--user", USER) if os.geteuid() == 0 else ()
        log = short_dir / "log"
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *prefix,
                *python,
                "-m",
                "qvirt_launcher.main",
                "--run-dir",
                str(run_dir),
                *user,
                *options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        launched = Launched(process, run_dir, log)
        try:
            yield launched
        finally:
            for monitor in launched.monitors:
                await monitor.aclose()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    return launching
