"""virt-launcher from outside: the real process, the real QEMU, a guest that is nothing but firmware."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest
from tests.launcher.conftest import Launch, Launched, firmware_only

from qvirt_crds.report import LocalVolume, VmReport
from qvirt_qmp.errors import QmpError

pytestmark = pytest.mark.qemu

SEED = {"name": "seed", "cloudInitNoCloud": {"userData": "#cloud-config\n"}}
SCRATCH = {"name": "scratch", "emptyDisk": {"capacity": "1Gi"}}


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


async def gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while not is_gone(pid):
            await asyncio.sleep(0.02)


async def running(launched: Launched, **spec: str | int) -> VmReport:
    await launched.sync(firmware_only(interfaces=False, **spec))
    return await launched.report("Running", "Failed")


async def test_without_a_guest_sigterm_ends_it_at_once(launch: Launch) -> None:
    async with launch() as launched:
        await launched.connect()
        launched.terminate()
        assert await launched.wait() == 0
        assert list(launched.run_dir.iterdir()) == []


async def test_a_guest_comes_up_and_says_all_about_itself(launch: Launch) -> None:
    async with launch() as launched:
        await launched.sync(firmware_only(SEED, SCRATCH))
        report = await launched.report("Running", "Failed")
        assert report.phase == "Running"
        assert (report.name, report.uid, report.accel) == ("tiny", "one", "tcg")
        assert report.launcher_pid == launched.process.pid
        assert report.qemu_pid is not None
        argv = Path(f"/proc/{report.qemu_pid}/cmdline").read_text().split("\0")[:-1]
        assert list(report.argv) == argv
        assert report.running_since is not None
        assert report.started < report.running_since
        assert "-S" in report.argv
        assert {p.name for p in (launched.run_dir / "disks").iterdir()} == {
            "seed.iso",
            "scratch.qcow2",
        }


async def test_a_deaf_guest_is_killed_after_its_grace_period(launch: Launch) -> None:
    async with launch() as launched:
        await running(launched, terminationGracePeriodSeconds=1)
        launched.terminate()
        last = await launched.last_report()
        assert (last.phase, last.end_reason) == ("Failed", "KilledAfterGrace")
        assert "power button" in last.message
        assert await launched.wait() == 7
        assert list(launched.run_dir.iterdir()) == []


async def test_a_second_sigterm_hurries(launch: Launch) -> None:
    async with launch() as launched:
        await running(launched, terminationGracePeriodSeconds=3600)
        launched.terminate()
        await launched.report("Stopping")
        launched.terminate()
        assert (await launched.last_report()).end_reason == "Stopped"
        assert await launched.wait() == 0


async def test_without_a_grace_period_it_is_stopped_at_once(launch: Launch) -> None:
    async with launch() as launched:
        await running(launched)
        await launched.monitors[0].execute("vm-stop", {"gracePeriodSeconds": 0})
        last = await launched.last_report()
        assert (last.phase, last.end_reason) == ("Succeeded", "Stopped")
        assert await launched.wait() == 0


async def test_a_frozen_qemu_is_killed_in_the_end(launch: Launch) -> None:
    async with launch() as launched:
        report = await running(launched)
        assert report.qemu_pid is not None
        os.kill(report.qemu_pid, signal.SIGSTOP)
        for _ in range(4):  # the power button, quit, SIGTERM, SIGKILL
            launched.terminate()
            await asyncio.sleep(0.1)
        assert await launched.wait() == 0
        assert is_gone(report.qemu_pid)


async def test_a_frozen_qemu_is_killed_by_deadlines_alone(launch: Launch) -> None:
    async with launch() as launched:
        report = await running(launched, terminationGracePeriodSeconds=1)
        assert report.qemu_pid is not None
        os.kill(report.qemu_pid, signal.SIGSTOP)
        launched.terminate()
        assert await launched.wait() == 7
        assert is_gone(report.qemu_pid)


async def test_a_qemu_that_is_killed_is_reported(launch: Launch) -> None:
    async with launch() as launched:
        report = await running(launched)
        assert report.qemu_pid is not None
        os.kill(report.qemu_pid, signal.SIGKILL)
        last = await launched.last_report()
        assert (last.phase, last.end_reason) == ("Failed", "QemuFailed")
        assert "signal 9" in last.message
        assert await launched.wait() == 5


async def test_qemu_dies_with_a_launcher_that_is_killed(launch: Launch) -> None:
    async with launch() as launched:
        report = await running(launched)
        assert report.qemu_pid is not None
        launched.process.kill()
        await launched.wait()
        await gone(report.qemu_pid)


async def test_a_guest_that_starts_paused_waits(launch: Launch) -> None:
    async with launch() as launched:
        monitor = await launched.sync(firmware_only(startStrategy="Paused"))
        assert (await launched.report("Paused", "Failed")).running_since is None
        assert await monitor.execute("query-status") == {
            "running": False,
            "singlestep": False,
            "status": "prelaunch",
        }
        await monitor.execute("cont")
        assert (await launched.report("Running")).running_since is not None
        await monitor.execute("stop")
        await launched.report("Paused")


async def test_what_cannot_be_prepared_is_said_in_one_line(launch: Launch, short_dir: Path) -> None:
    volume = {"name": "root", "containerDisk": {"image": "x"}}
    place = LocalVolume(volume="root", path=str(short_dir / "missing.qcow2"), format="qcow2")
    async with launch() as launched:
        await launched.sync(firmware_only(volume, SEED), place)
        last = await launched.last_report()
        assert (last.phase, last.end_reason) == ("Failed", "PrepareFailed")
        assert last.message == f"{place.path} does not exist"
        assert await launched.wait() == 4
        assert "Traceback" not in launched.text
        assert list(launched.run_dir.iterdir()) == []


async def test_a_worker_that_is_killed_is_reported(launch: Launch) -> None:
    async with launch() as launched:
        await launched.connect()
        (worker,) = children(launched.process.pid)
        os.kill(worker, signal.SIGKILL)
        await launched.sync(firmware_only())
        launched.monitors.reverse()
        last = await launched.last_report()
        assert last.end_reason == "PrepareFailed"
        assert "out of memory" in last.message
        assert await launched.wait() == 4


def children(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


async def test_a_qemu_that_refuses_its_command_line_leaves_its_words(
    launch: Launch, short_dir: Path
) -> None:
    """A serial socket that can't be made: QEMU, not we, finds out."""
    async with launch() as launched:
        await launched.connect()
        (launched.run_dir / "serial0.sock").mkdir()
        await launched.sync(firmware_only())
        launched.monitors.reverse()
        last = await launched.last_report()
        assert last.end_reason == "QemuFailed"
        assert "serial0.sock" in last.message
        assert await launched.wait() == 5
        (launched.run_dir / "serial0.sock").rmdir()


async def test_the_introspection_socket_only_looks(launch: Launch) -> None:
    async with launch() as launched:
        await running(launched)
        monitor = await launched.connect("qmp.sock")
        assert msgspec.convert(await monitor.execute("vm-query"), VmReport).phase == "Running"
        status = await monitor.execute("query-status")
        assert isinstance(status, dict)
        assert status["status"] == "running"
        for command in ("vm-stop", "quit", "stop", "system_powerdown"):
            with pytest.raises(QmpError, match="refused"):
                await monitor.execute(command)
        with pytest.raises(QmpError, match="control socket"):
            await monitor.execute("vm-sync", {"vmi": msgspec.to_builtins(firmware_only())})
        assert (await launched.report()).phase == "Running"


async def test_what_was_said_is_in_the_recorder(launch: Launch) -> None:
    async with launch() as launched:
        await running(launched)
        entries = await launched.monitors[0].execute("vm-recorder")
        assert isinstance(entries, list)
        said = [(entry["kind"], entry["name"]) for entry in entries]
        assert ("command", "cont") in said
        assert ("event", "RESUME") in said
        newer = await launched.monitors[0].execute("vm-recorder", {"since": entries[-1]["number"]})
        assert newer == []


async def test_every_child_has_given_everything_up(launch: Launch) -> None:
    async with launch() as launched:
        await launched.connect()
        waiting = [launched.process.pid, *children(launched.process.pid)]
        await launched.sync(firmware_only())
        report = await launched.report("Running", "Failed")
        assert report.qemu_pid is not None
        for pid in (*waiting[:1], report.qemu_pid):
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if ":\t" in line
            )
            assert {int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Amb")} == {0}
            assert status["NoNewPrivs"] == "1"
            assert "0" not in status["Uid"].split()
            if os.geteuid() == 0:
                assert int(status["CapBnd"], 16) == 0
                assert "0" not in status["Groups"].split()
        # The worker has done its one thing and is gone.
        assert children(launched.process.pid) == [report.qemu_pid]


async def test_qemu_inherits_its_monitor_and_nothing_else(launch: Launch) -> None:
    async with launch() as launched:
        report = await running(launched)
        theirs = {
            os.readlink(f"/proc/{report.qemu_pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{report.qemu_pid}/fd")
        }
        ours = {
            os.readlink(f"/proc/{launched.process.pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{launched.process.pid}/fd")
        }
        assert {name for name in theirs & ours if "socket" in name or "eventpoll" in name} <= {
            "anon_inode:[eventpoll]"  # each has one of its own, which all have this name
        }
