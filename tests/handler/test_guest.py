"""A session with a launcher that is played by the launcher's own server: what is asked, and what is seen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qvirt_crds.agent import AgentReport
from qvirt_crds.report import VmReport
from qvirt_crds.sync import SyncArguments
from qvirt_handler import finder, network
from qvirt_handler.errors import LauncherMissing, LauncherStrange, SyncRefused
from qvirt_handler.finder import Process
from qvirt_handler.guest import Session
from qvirt_handler.status import CREATED, SHUTTING_DOWN, Notice
from qvirt_netsetup.errors import TapBusy
from qvirt_netsetup.service import Outcome
from qvirt_qmp.errors import CommandFailed
from qvirt_qmp.server import Server
from qvirt_qmp.session import Call

UID = "5d307ca9-b3ef-428c-8861-06e72d69f223"
NODE = "n1"


def vmi(**meta: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "demo", "namespace": "default", "uid": UID, **meta},
        "spec": {"domain": {"devices": {"autoattachPodInterface": False}}},
        "status": {"phase": "Scheduled", "activePods": {"pod-one": NODE}},
    }


class Everywhere:
    """Finds this process, for any pod."""

    def find(self, pod_uid: str) -> Process:  # noqa: ARG002  the protocol's
        return Process(os.getpid())

    def belongs(self, process: Process, pod_uid: str) -> bool:  # noqa: ARG002  the protocol's
        return True


class Launcher:
    """What a launcher answers."""

    def __init__(self) -> None:
        self.report = VmReport()
        self.run_state = "paused"
        self.refusal = ""
        self.synced: list[SyncArguments] = []
        self.server = Server(self.handle, greeting={"qemu": {"major": 0, "minor": 1, "micro": 0}})

    async def handle(self, call: Call) -> object:
        match call.command:
            case "vm-query":
                return self.report
            case "vm-sync":
                if self.refusal:
                    raise CommandFailed(call.command, "GenericError", self.refusal)
                self.synced.append(msgspec.convert(call.arguments, SyncArguments))
                self.report = VmReport(uid=UID, phase="Preparing")
                return self.report
            case "query-status":
                return {"status": self.run_state, "running": False}
            case other:
                raise AssertionError(other)

    async def hang_up(self) -> None:
        await self.server.aclose()


@pytest.fixture
async def launcher(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Launcher]:
    with tempfile.TemporaryDirectory(prefix="qv") as name:
        monkeypatch.setattr(finder, "RUN_DIR", name)
        launcher = Launcher()
        await launcher.server.listen(str(Path(name) / "launcher.sock"), grade="admin")
        yield launcher
        await launcher.server.aclose()


class Log:
    """Remembers what was seen, the newest of each kind."""

    def __init__(self) -> None:
        self.seen: dict[str, object] = {}
        self.told: list[Notice] = []

    def see(self, **changes: object) -> None:
        self.seen |= changes

    def tell(self, notice: Notice) -> None:
        self.told.append(notice)

    async def until(self, **wanted: object) -> None:
        async with asyncio.timeout(10):
            while any(self.seen.get(key) != value for key, value in wanted.items()):
                await asyncio.sleep(0.01)


@pytest.fixture
def log() -> Log:
    return Log()


@contextlib.asynccontextmanager
async def following(launcher: Launcher, log: Log, spec: dict[str, Any]) -> AsyncIterator[None]:
    """A session that has begun; it ends by the launcher's hanging up."""
    session = asyncio.create_task(Session(Everywhere(), "/nowhere", log).follow(spec, NODE))
    try:
        await log.until(trouble="")
        yield
    finally:
        await launcher.hang_up()
        async with asyncio.timeout(10):
            await session


async def test_a_launcher_that_waits_gets_its_guest(launcher: Launcher, log: Log) -> None:
    async with following(launcher, log, vmi()):
        (arguments,) = launcher.synced
        assert arguments.vmi.metadata.uid == UID
        assert arguments.volumes == ()
        assert log.told == [CREATED]
        running = VmReport(uid=UID, phase="Running")
        launcher.server.broadcast("VM_STATUS", running, None)
        await log.until(report=running, run_state="")


async def test_a_launcher_that_has_its_guest_gets_nothing(launcher: Launcher, log: Log) -> None:
    launcher.report = VmReport(uid=UID, phase="Running", qemu_pid=7)
    async with following(launcher, log, vmi()):
        assert launcher.synced == []
        assert log.told == []
        assert log.seen["report"] == launcher.report


async def test_a_vmi_that_is_deleted_is_not_started(launcher: Launcher, log: Log) -> None:
    session = Session(Everywhere(), "/nowhere", log)
    deleted = vmi(deletionTimestamp="2026-01-01T00:00:00Z")
    follow = asyncio.create_task(session.follow(deleted, NODE))
    for _ in range(20):
        await asyncio.sleep(0.01)
    await launcher.hang_up()
    await follow
    assert launcher.synced == []


async def test_a_launcher_of_another_guest(launcher: Launcher, log: Log) -> None:
    launcher.report = VmReport(uid="other", phase="Running")
    with pytest.raises(LauncherStrange, match="serves the VMI with uid other"):
        await Session(Everywhere(), "/nowhere", log).follow(vmi(), NODE)
    assert launcher.synced == []


async def test_a_refusal_is_told_in_the_launchers_words(launcher: Launcher, log: Log) -> None:
    launcher.refusal = "no such thing"
    with pytest.raises(SyncRefused, match="no such thing"):
        await Session(Everywhere(), "/nowhere", log).follow(vmi(), NODE)


async def test_no_pod_on_this_node(log: Log) -> None:
    with pytest.raises(LauncherMissing, match="names no pod of this node"):
        await Session(Everywhere(), "/nowhere", log).follow(vmi(), "another")


async def test_a_network_that_cannot_be_made(
    launcher: Launcher, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object) -> Outcome:
        raise TapBusy("tap0")

    monkeypatch.setattr(network, "set_up", busy)
    with pytest.raises(TapBusy):
        await Session(Everywhere(), "/nowhere", log).follow(vmi(), NODE)
    assert launcher.synced == []


async def test_the_agents_words_are_part_of_the_report(launcher: Launcher, log: Log) -> None:
    launcher.report = VmReport(uid=UID, phase="Running", qemu_pid=7)
    async with following(launcher, log, vmi()):
        for there in (True, False, True):
            told = VmReport(uid=UID, phase="Running", agent=AgentReport(connected=there))
            launcher.server.broadcast("VM_STATUS", told, None)
            await log.until(report=told)


async def test_a_shutdown_is_told_once_and_a_soft_reboot_is_none(
    launcher: Launcher, log: Log
) -> None:
    launcher.report = VmReport(uid=UID, phase="Running", qemu_pid=7)
    async with following(launcher, log, vmi()):
        launcher.server.broadcast("POWERDOWN", {}, None)
        stopping = VmReport(uid=UID, phase="Stopping")
        launcher.server.broadcast("VM_STATUS", stopping, None)
        await log.until(report=stopping)
        assert log.told == []
        for _ in range(3):
            launcher.server.broadcast("POWERDOWN", {}, None)
        gone = VmReport(uid=UID, phase="Succeeded")
        launcher.server.broadcast("VM_STATUS", gone, None)
        await log.until(report=gone)
        assert log.told == [SHUTTING_DOWN]


async def test_a_pause_is_asked_for_its_cause(launcher: Launcher, log: Log) -> None:
    launcher.report = VmReport(uid=UID, phase="Running", qemu_pid=7)
    launcher.run_state = "io-error"
    async with following(launcher, log, vmi()):
        launcher.server.broadcast("VM_STATUS", VmReport(uid=UID, phase="Paused"), None)
        await log.until(run_state="io-error")


async def test_the_cause_of_a_failure_is_trouble(launcher: Launcher, log: Log) -> None:
    async with following(launcher, log, vmi()):
        failed = VmReport(
            uid=UID, phase="Failed", end_reason="PrepareFailed", message="no disk present"
        )
        launcher.server.broadcast("VM_STATUS", failed, None)
        await log.until(trouble="no disk present")
