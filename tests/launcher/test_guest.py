"""A real guest under virt-launcher: how its own doings end it, or don't."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from tests.launcher.conftest import Launch, Launched, firmware_only

from qvirt_crds.report import LocalVolume
from qvirt_crds.vm import VirtualMachineInstance

pytestmark = [pytest.mark.qemu, pytest.mark.guest, pytest.mark.timeout(400)]

IMAGE = Path(__file__).resolve().parents[2] / "build" / "guest" / "demo-guest.qcow2"
#: Emulated, on a machine that is busy.
PATIENCE = 180.0


class Terminal:
    """The guest's console, typed at by a test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.seen = ""

    async def wait_for(self, pattern: str) -> None:
        """Until it has shown this, after what was waited for last."""
        async with asyncio.timeout(PATIENCE):
            while (found := re.search(pattern, self.seen)) is None:
                chunk = await self._reader.read(4096)
                assert chunk, f"the console ended: {self.seen[-2000:]}"
                self.seen += chunk.decode(errors="replace")
        self.seen = self.seen[found.end() :]

    async def type(self, line: str) -> None:
        self._writer.write(line.encode() + b"\n")
        await self._writer.drain()

    async def login(self) -> None:
        await self.wait_for("login: ")
        await self.type("root")
        await self.wait_for("# ")

    def close(self) -> None:
        self._writer.close()


def linux(**spec: object) -> tuple[VirtualMachineInstance, LocalVolume]:
    """The demo guest; ``spec``'s fields go over the others, ``domain``'s one by one."""
    if not IMAGE.exists():
        pytest.skip("needs the demo guest: make guest")
    plain = firmware_only({"name": "root", "containerDisk": {"image": "demo"}})
    data = msgspec.to_builtins(plain)
    domain = data["spec"]["domain"]
    domain["memory"]["guest"] = "96Mi"
    more = spec.pop("domain", {})
    assert isinstance(more, Mapping)
    domain |= {k: domain.get(k, {}) | v if isinstance(v, dict) else v for k, v in more.items()}
    data["spec"] |= spec
    vmi = msgspec.convert(data, VirtualMachineInstance)
    return vmi, LocalVolume(volume="root", path=str(IMAGE), format="qcow2")


async def booted(launched: Launched, **spec: object) -> Terminal:
    vmi, place = linux(**spec)
    await launched.sync(vmi, place)
    report = await launched.report("Running", "Failed")
    assert report.phase == "Running", report.message
    return Terminal(*await asyncio.open_unix_connection(str(launched.run_dir / "console.sock")))


async def ended(launched: Launched) -> tuple[str | None, int]:
    async with asyncio.timeout(PATIENCE):
        last = await launched.last_report()
    return last.end_reason, await launched.wait()


async def test_told_to_stop_while_it_boots_it_shuts_down(launch: Launch) -> None:
    """The first press of the button finds no driver; a later one does."""
    async with launch() as launched:
        terminal = await booted(launched, terminationGracePeriodSeconds=150)
        await terminal.wait_for("Linux version")
        launched.terminate()
        assert await ended(launched) == ("GuestShutdown", 0)
        terminal.close()


async def test_it_powers_itself_off(launch: Launch) -> None:
    async with launch() as launched:
        terminal = await booted(launched)
        await terminal.login()
        await terminal.type("poweroff")
        assert await ended(launched) == ("GuestShutdown", 0)
        terminal.close()


async def test_a_paused_guest_is_woken_and_shuts_down(launch: Launch) -> None:
    async with launch() as launched:
        terminal = await booted(launched, terminationGracePeriodSeconds=150)
        await terminal.login()
        await launched.monitors[0].execute("stop")
        await launched.report("Paused")
        launched.terminate()
        assert await ended(launched) == ("GuestShutdown", 0)
        terminal.close()


async def test_it_reboots_and_goes_on_and_its_panic_is_its_end(launch: Launch) -> None:
    devices = {"panicDevices": [{"model": "pvpanic"}]}
    async with launch() as launched:
        terminal = await booted(launched, domain={"devices": devices})
        await terminal.login()
        before = await launched.report()
        await terminal.type("reboot")
        await terminal.login()
        assert await launched.report() == before
        await terminal.type("echo c > /proc/sysrq-trigger")
        assert await ended(launched) == ("GuestPanicked", 6)
        terminal.close()


async def test_under_reboot_policy_terminate_its_reboot_is_its_end(launch: Launch) -> None:
    async with launch() as launched:
        terminal = await booted(launched, domain={"rebootPolicy": "Terminate"})
        await terminal.login()
        await terminal.type("reboot")
        assert await ended(launched) == ("GuestReset", 0)
        terminal.close()
