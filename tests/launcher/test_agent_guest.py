"""The real agent of a full Debian guest, under virt-launcher. One guest serves all tests of this file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.launcher.conftest import USER, firmware_only

from qvirt_crds.report import Attachment, LocalVolume, SyncArguments, VmReport
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_qmp.client import Monitor, connect_unix
from qvirt_qmp.errors import ConnectFailed

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]

IMAGE = Path(__file__).resolve().parents[2] / "build" / "guest" / "cloud-guest.qcow2"
#: Of a boot with cloud-init, emulated, on a machine that is busy.
BOOT = 900.0
PATIENCE = 120.0
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyAcmn1zHrGCuP8Wbbyu1gmBnqLHBMuUCuo4U7FjIQ3 one@test"
OTHER_KEY = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqOBSt0wW4rPlRa7W2mrBKyPp5vDYR5g8ioTwR7kDd2 two@test"
)
USER_DATA = "#cloud-config\nusers:\n  - name: vera\n    lock_passwd: false\n    shell: /bin/bash\n"


def cloud_guest() -> VirtualMachineInstance:
    plain = firmware_only(
        {"name": "root", "containerDisk": {"image": "cloud"}},
        {"name": "seed", "cloudInitNoCloud": {"userData": USER_DATA}},
        interfaces=True,
    )
    data = msgspec.to_builtins(plain)
    data["metadata"]["name"] = "cloudy"
    domain = data["spec"]["domain"]
    domain["memory"]["guest"] = "1Gi"
    domain["cpu"] = {"sockets": 1, "cores": 2, "threads": 1}
    return msgspec.convert(data, VirtualMachineInstance)


class Place:
    """Where the guest lives; every test has connections of its own."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Monitor]:
        monitor = await connect_unix(str(self.run_dir / "launcher.sock"))
        try:
            yield monitor
        finally:
            await monitor.aclose()

    async def ask(self, command: str, **arguments: object) -> Any:
        async with self.connected() as monitor:
            return await monitor.execute(command, arguments, deadline=PATIENCE)

    async def report(self) -> VmReport:
        return msgspec.convert(await self.ask("vm-query"), VmReport)

    async def until(self, wanted: Callable[[VmReport], bool], seconds: float = PATIENCE) -> VmReport:
        async with asyncio.timeout(seconds):
            while not wanted(report := await self.report()):
                assert report.phase not in ("Succeeded", "Failed"), report.message
                await asyncio.sleep(0.5)
        return report

    async def run(self, script: str) -> str:
        """A shell script inside of the guest; its output, when it has gone well."""
        done = await self.ask(
            "agent-exec", command="/bin/sh", args=["-c", script], timeoutSeconds=PATIENCE
        )
        assert done["exitCode"] == 0, done
        return str(done.get("stdout", ""))


async def _hand_over(place: Place) -> None:
    arguments = SyncArguments(
        vmi=cloud_guest(),
        attachments=(
            Attachment(interface="default", backend="user", mac="02:00:00:00:00:07"),
        ),
        volumes=(LocalVolume(volume="root", path=str(IMAGE), format="qcow2"),),
        accel="tcg",
    )
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(ConnectFailed):
                await place.ask("vm-sync", **msgspec.to_builtins(arguments))
                return
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def guest() -> Iterator[Place]:
    """The guest, as soon as its agent has been heard of."""
    if not IMAGE.exists():
        pytest.skip("needs the cloud guest: make guest")
    with tempfile.TemporaryDirectory(prefix="qv", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        place = Place(Path(folder) / "vm")
        user = ("--user", USER) if os.geteuid() == 0 else ()
        log = Path(folder) / "log"
        command = (sys.executable, "-P", "-m", "qvirt_launcher.main")
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, "--run-dir", str(place.run_dir), *user],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            asyncio.run(_hand_over(place))
            asyncio.run(place.until(lambda report: _introduced(report), BOOT))
            yield place
        except BaseException:
            print(log.read_text(errors="replace"))
            raise
        finally:
            process.kill()
            process.wait()


def _introduced(report: VmReport) -> bool:
    return report.agent is not None and report.agent.os is not None


async def test_it_says_who_it_is(guest: Place) -> None:
    report = await guest.until(lambda report: bool(report.agent and report.agent.timezone))
    agent = report.agent
    assert agent is not None
    assert agent.connected
    assert agent.unsupported == ""
    assert agent.os is not None
    assert (agent.os.id, agent.os.name) == ("debian", "Debian GNU/Linux")
    assert agent.os.machine == "x86_64"
    assert agent.hostname == "cloudy"
    assert agent.freeze_status == "thawed"
