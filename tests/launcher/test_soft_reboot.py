"""A soft reboot without an agent, and pictures of the screen: real QEMU, real guests."""

from __future__ import annotations

import asyncio
import base64
import re
import struct
from pathlib import Path

import msgspec
import pytest
from tests.launcher.conftest import Launch, Launched, firmware_only

from qvirt_crds.report import LocalVolume, ScreenshotReturn
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.inputs import (
    Cont,
    DeadlinePassed,
    OnPowerOff,
    PowerDown,
    RebootRequested,
    ResetMachine,
    SetDeadline,
    Signalled,
)
from qvirt_launcher.lifecycle import State, step
from qvirt_launcher.phases import RESET_SECONDS
from qvirt_qmp import events, sockets
from qvirt_qmp.errors import QmpError

DEMO = Path(__file__).resolve().parents[2] / "build" / "guest" / "demo-guest.qcow2"
BOOT = 120.0

RUNNING = State(phase="Running", ran=True, connected=True, grace=12)
OFF = events.Shutdown(guest=True, reason="guest-shutdown")
RESET = events.Reset(guest=False, reason="host-qmp-system-reset")


# --- the steps -------------------------------------------------------------------------------------------------------


def test_off_and_on_again() -> None:
    state, effects = step(RUNNING, RebootRequested())
    assert effects == (OnPowerOff(leave=False), PowerDown(), SetDeadline(5))
    state, effects = step(state, OFF)
    assert effects == (ResetMachine(), SetDeadline(RESET_SECONDS))
    state, effects = step(state, events.Stop())
    assert (state.phase, effects) == ("Running", ())
    state, effects = step(state, RESET)
    assert effects == (SetDeadline(None), OnPowerOff(leave=True), Cont())
    state, effects = step(state, events.Resume())
    assert (state, effects) == (RUNNING, ())


def test_a_guest_that_ignores_the_button_is_let_be() -> None:
    state, _ = step(RUNNING, RebootRequested())
    given = []
    while state.reboot != "none":
        state, effects = step(state, DeadlinePassed())
        given.append(effects)
    assert given == [
        (PowerDown(), SetDeadline(5)),
        (PowerDown(), SetDeadline(2)),
        (OnPowerOff(leave=True),),
    ]
    # From now on a power-off is the end again.
    state, _ = step(state, OFF)
    assert (state.phase, state.end) == ("Stopping", "GuestShutdown")


def test_to_stop_is_more_than_to_reboot() -> None:
    state, _ = step(RUNNING, RebootRequested())
    state, effects = step(state, Signalled())
    assert effects[:2] == (OnPowerOff(leave=True), PowerDown())
    state, _ = step(state, OFF)
    assert (state.phase, state.end) == ("Stopping", "GuestShutdown")


def test_a_guest_that_is_off_needs_no_grace_period() -> None:
    state, _ = step(RUNNING, RebootRequested())
    state, _ = step(state, OFF)
    state, _ = step(state, Signalled())
    assert (state.rung, state.end) == ("quit", "GuestShutdown")
    # The reset that was under way starts nothing.
    assert step(state, RESET) == (state, ())


def test_a_machine_that_is_not_reset_is_given_up() -> None:
    state, _ = step(RUNNING, RebootRequested())
    state, _ = step(state, OFF)
    state, _ = step(state, DeadlinePassed())
    assert (state.rung, state.end) == ("terminate", "QemuFailed")


@pytest.mark.parametrize("phase", ["Paused", "Starting", "Waiting"])
def test_only_a_guest_that_runs(phase: str) -> None:
    state = State(phase=phase, connected=True)  # type: ignore[arg-type]
    assert step(state, RebootRequested()) == (state, ())


def test_where_a_reboot_is_the_end_the_button_is_enough() -> None:
    state = State(phase="Running", ran=True, connected=True, reboot_ends=True)
    assert step(state, RebootRequested()) == (state, (PowerDown(),))


def test_a_pause_in_between_keeps_the_deadline() -> None:
    state, _ = step(RUNNING, RebootRequested())
    state, _ = step(state, events.Stop())
    state, effects = step(state, events.Resume())
    assert (state.phase, effects) == ("Running", ())


# --- real guests -----------------------------------------------------------------------------------------------------


def demo_guest() -> VirtualMachineInstance:
    plain = msgspec.to_builtins(firmware_only({"name": "root", "containerDisk": {"image": "demo"}}))
    plain["spec"]["domain"]["memory"]["guest"] = "64Mi"
    plain["spec"]["domain"]["devices"]["autoattachGraphicsDevice"] = True
    return msgspec.convert(plain, VirtualMachineInstance)


class Screen:
    """What the guest's serial console says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._text = ""

    async def until(self, pattern: str) -> None:
        """And forget all that came before."""
        async with asyncio.timeout(BOOT):
            while not (found := re.search(pattern, self._text)):
                chunk = await self._reader.read(4096)
                assert chunk, self._text
                self._text += chunk.decode(errors="replace")
        self._text = self._text[found.end() :]


async def console(launched: Launched) -> Screen:
    sock = await sockets.connect_path(str(launched.run_dir / "console.sock"))
    return Screen(*await asyncio.open_unix_connection(sock=sock))


@pytest.mark.qemu
@pytest.mark.guest
@pytest.mark.timeout(400)
async def test_a_guest_shuts_down_and_boots_again(launch: Launch) -> None:
    if not DEMO.exists():
        pytest.skip("needs the demo guest: make guest")
    async with launch() as launched:
        volume = LocalVolume(volume="root", path=str(DEMO), format="qcow2", read_only=True)
        monitor = await launched.sync(demo_guest(), volume)
        before = await launched.report("Running", "Failed")
        screen = await console(launched)
        await screen.until("login: ")
        await monitor.execute("vm-soft-reboot")
        await screen.until("(?i)power ?down|going down|sent SIGTERM")
        await screen.until("login: ")
        after = await launched.report()
        assert (after.phase, after.qemu_pid) == ("Running", before.qemu_pid)
        # Once is once: the next power-off is the end.
        await monitor.execute("vm-stop")
        assert await launched.wait() == 0
        screen.writer.transport.abort()


@pytest.mark.qemu
@pytest.mark.timeout(120)
@pytest.mark.parametrize("wake", [False, True])
async def test_a_picture_of_the_screen(launch: Launch, wake: bool) -> None:
    plain = msgspec.to_builtins(firmware_only())
    plain["spec"]["domain"]["devices"]["autoattachGraphicsDevice"] = True
    vmi = msgspec.convert(plain, VirtualMachineInstance)
    async with launch() as launched:
        monitor = await launched.sync(vmi)
        await launched.report("Running")
        answer = await monitor.execute("vm-screenshot", {"wake": wake}, deadline=30)
        png = base64.b64decode(msgspec.convert(answer, ScreenshotReturn).png)
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", png[16:24])
        assert width >= 320
        assert height >= 200
        assert png[-8:-4] == b"IEND"
        assert not list(launched.run_dir.glob("*.png"))


@pytest.mark.qemu
@pytest.mark.timeout(120)
async def test_no_screen_no_picture(launch: Launch) -> None:
    async with launch() as launched:
        monitor = await launched.sync(firmware_only())
        await launched.report("Running")
        with pytest.raises(QmpError, match=r"(?i)console"):
            await monitor.execute("vm-screenshot")
        assert not list(launched.run_dir.glob("*.png"))
        # Not for those who may only look.
        reader = await launched.connect("qmp.sock")
        for command in ("vm-screenshot", "vm-soft-reboot"):
            with pytest.raises(QmpError, match="control socket"):
                await reader.execute(command)
