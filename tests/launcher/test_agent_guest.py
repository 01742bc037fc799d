"""The real agent of a full Debian guest, under virt-launcher. One guest serves all tests of this file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.launcher.conftest import USER, firmware_only

from qvirt_crds.report import Attachment, LocalVolume, VmReport
from qvirt_crds.sync import SyncArguments
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_qmp.client import Monitor, connect_unix
from qvirt_qmp.errors import CommandFailed, ConnectFailed

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
USER_DATA = """#cloud-config
users:
  - default
  - name: vera
    lock_passwd: false
    shell: /bin/bash
  - name: otto
    shell: /bin/bash
"""


def secret(kind: str, name: str, method: dict[str, object]) -> dict[str, object]:
    source = {"secret": {"secretName": name}}
    return {kind: {"source": source, "propagationMethod": method}}


ACCESS = [
    secret("sshPublicKey", "boot", {"noCloud": {}}),
    secret("sshPublicKey", "later", {"qemuGuestAgent": {"users": ["otto"]}}),
    secret("userPassword", "words", {"qemuGuestAgent": {}}),
]
SECRETS = {
    "boot": {"one": KEY},
    "later": {"two": f"# mine\n{OTHER_KEY}\n"},
    "words": {"otto": "first-word\n"},
}


def cloud_guest() -> VirtualMachineInstance:
    plain = firmware_only(
        {"name": "root", "containerDisk": {"image": "cloud"}},
        {"name": "seed", "cloudInitNoCloud": {"userData": USER_DATA}},
        interfaces=True,
    )
    data = msgspec.to_builtins(plain)
    data["metadata"]["name"] = "cloudy"
    data["spec"]["accessCredentials"] = ACCESS
    domain = data["spec"]["domain"]
    domain["memory"]["guest"] = "1Gi"
    domain["cpu"] = {"sockets": 1, "cores": 2, "threads": 1}
    return msgspec.convert(data, VirtualMachineInstance)


class Place:
    """Where the guest lives; every test has connections of its own."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "vm"
        self.secrets = folder / "secrets"
        for name, values in SECRETS.items():
            (self.secrets / name).mkdir(parents=True)
            for key, value in values.items():
                (self.secrets / name / key).write_text(value)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Monitor]:
        monitor = await connect_unix(str(self.run_dir / "launcher.sock"))
        try:
            yield monitor
        finally:
            await monitor.aclose()

    async def ask(self, what: str, /, **arguments: object) -> Any:
        async with self.connected() as monitor:
            return await monitor.execute(what, arguments, deadline=PATIENCE)

    async def report(self) -> VmReport:
        return msgspec.convert(await self.ask("vm-query"), VmReport)

    async def until(
        self, wanted: Callable[[VmReport], bool], seconds: float = PATIENCE
    ) -> VmReport:
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
        attachments=(Attachment(interface="default", backend="user", mac="02:00:00:00:00:07"),),
        volumes=(
            LocalVolume(volume="root", path=str(IMAGE), format="qcow2"),
            *(
                LocalVolume(volume=f"{name}-access-cred", path=str(place.secrets / name))
                for name in SECRETS
            ),
        ),
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
        place = Place(Path(folder))
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
            asyncio.run(place.until(_introduced, BOOT))
            yield place
        except BaseException:
            sys.stderr.write(log.read_text(errors="replace"))
            raise
        finally:
            process.kill()
            process.wait()


def _introduced(report: VmReport) -> bool:
    return report.agent is not None and report.agent.os is not None


async def refused(place: Place, what: str, /, **arguments: object) -> tuple[str, str]:
    with pytest.raises(CommandFailed) as caught:
        await place.ask(what, **arguments)
    return caught.value.error_class, caught.value.description


async def keys_of(place: Place, user: str) -> list[str]:
    return (await place.run(f"cat ~{user}/.ssh/authorized_keys")).splitlines()


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
    assert agent.timezone == "Etc/UTC, 0" or agent.timezone == "UTC, 0"


async def test_its_interfaces_are_told_with_all_addresses(guest: Place) -> None:
    def has_address(report: VmReport) -> bool:
        found = (report.agent and report.agent.interfaces) or ()
        return any("10.0.2.15" in interface.addresses for interface in found)

    report = await guest.until(has_address)
    assert report.agent is not None
    assert report.agent.interfaces is not None
    (card,) = report.agent.interfaces
    assert card.mac == "02:00:00:00:00:07"
    assert any(address.startswith("fe80:") for address in card.addresses)


async def test_the_subresources_are_answered_in_kubevirts_shape(guest: Place) -> None:
    info = await guest.ask("agent-info")
    assert info["guestAgentVersion"].startswith("7.2")
    assert {"name": "guest-ping", "enabled": True} in info["supportedCommands"]
    assert info["hostname"] == "cloudy"
    assert info["os"]["prettyName"].startswith("Debian GNU/Linux 12")
    assert set(info["os"]) == {
        *("name", "kernelRelease", "version", "prettyName"),
        *("versionId", "kernelVersion", "machine", "id"),
    }
    assert info["fsFreezeStatus"] == "thawed"
    root = next(disk for disk in info["fsInfo"]["disks"] if disk["mountPoint"] == "/")
    assert (root["fileSystemType"], root["disk"][0]["busType"]) == ("ext4", "virtio")
    assert 0 < root["usedBytes"] < root["totalBytes"]
    mounted = await guest.ask("agent-filesystems")
    assert mounted["metadata"] == {}
    assert root["mountPoint"] in [item["mountPoint"] for item in mounted["items"]]
    users = await guest.ask("agent-users")
    assert users == {"metadata": {}, "items": []}


async def test_programs_run_to_their_end(guest: Place) -> None:
    assert await guest.run("echo a; echo b >&2; id -un") == "a\nroot\n"
    done = await guest.ask("agent-exec", command="/bin/sh", args=["-c", "echo no >&2; exit 7"])
    assert done == {"exitCode": 7, "stderr": "no\n"}
    done = await guest.ask("agent-exec", command="/bin/sh", args=["-c", "kill -TERM $$"])
    assert done == {"exitCode": 128 + 15}
    long = await guest.run("head -c 300000 /dev/zero | tr '\\0' x")
    assert long == "x" * 65536
    kind, text = await refused(guest, "agent-exec", command="/nowhere")
    assert kind == "AgentRefused"
    assert "/nowhere" in text


async def test_a_program_that_hangs_is_given_up_and_killed(guest: Place) -> None:
    kind, text = await refused(
        guest, "agent-exec", command="/bin/sleep", args=["54321"], timeoutSeconds=5
    )
    assert kind == "AgentTimeout"
    assert "/bin/sleep did not end within 5 s" in text
    async with asyncio.timeout(PATIENCE):
        while "54321" in await guest.run("ps -eo args | grep '[s]leep 54321' || true"):
            await asyncio.sleep(0.5)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--guestAgentPing"], 0, ""),
        (["--command", "echo", "--", "well", "--", "done"], 0, "well -- done\n"),
        (["--command", "false"], 1, ""),
    ],
)
async def test_virt_probe(guest: Place, words: list[str], code: int, said: str) -> None:
    socket = ("--socket", str(guest.run_dir / "launcher.sock"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "qvirt_launcher.virt_probe"),
        *("--timeoutSeconds", "30", *socket, *words),
        stdout=subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        output, _ = await process.communicate()
    assert (process.returncode, output.decode()) == (code, said)


async def test_freezing_and_thawing(guest: Place) -> None:
    await guest.ask("agent-freeze", unfreezeTimeoutSeconds=600)
    report = await guest.report()
    assert report.agent is not None
    assert report.agent.freeze_status == "frozen"
    kind, _ = await refused(guest, "agent-exec", command="/bin/true")
    assert kind == "AgentCommandMissing"
    assert (await guest.ask("agent-info"))["fsFreezeStatus"] == "frozen"
    await guest.ask("agent-freeze", unfreezeTimeoutSeconds=600)
    await guest.ask("agent-thaw")
    await guest.ask("agent-thaw")
    await guest.run("touch /var/tmp/thawed")


async def test_a_frozen_guest_is_thawed_when_its_time_is_over(guest: Place) -> None:
    await guest.ask("agent-freeze", unfreezeTimeoutSeconds=1)
    await guest.until(lambda report: bool(report.agent and report.agent.freeze_status == "thawed"))
    await guest.run("touch /var/tmp/thawed-again")


async def test_credentials_came_with_the_boot_and_through_the_agent(guest: Place) -> None:
    def synchronized(report: VmReport) -> bool:
        sync = report.agent and report.agent.credentials
        return bool(sync and sync.synchronized)

    await guest.until(synchronized)
    assert (await keys_of(guest, "debian"))[-1] == KEY
    assert await keys_of(guest, "otto") == [OTHER_KEY]
    assert await guest.run("stat -c '%U %a' ~otto/.ssh/authorized_keys") == "otto 600\n"
    before = await guest.run("getent shadow otto | cut -d: -f2")
    assert before.startswith("$")

    (guest.secrets / "later" / "two").write_text(f"{KEY}\n")
    (guest.secrets / "words" / "otto").write_text("second word")
    async with asyncio.timeout(PATIENCE):
        while await keys_of(guest, "otto") != [KEY]:
            await asyncio.sleep(1)
        while await guest.run("getent shadow otto | cut -d: -f2") == before:
            await asyncio.sleep(1)


async def test_credentials_of_a_user_that_is_not_there_are_told(guest: Place) -> None:
    file = guest.secrets / "words" / "nobody-at-all"
    file.write_text("x")

    def failed(report: VmReport) -> bool:
        sync = report.agent and report.agent.credentials
        return bool(sync and not sync.synchronized and "guest-set-user-password" in sync.message)

    await guest.until(failed)
    file.unlink()
    await guest.until(
        lambda r: bool(r.agent and r.agent.credentials and r.agent.credentials.synchronized)
    )


async def test_passwords_and_keys_on_demand(guest: Place) -> None:
    before = await guest.run("getent shadow vera | cut -d: -f2")
    await guest.ask("agent-set-password", user="vera", password="ünder cover")
    assert await guest.run("getent shadow vera | cut -d: -f2") != before
    await guest.ask("agent-authorized-keys", user="vera", keys=[KEY])
    await guest.ask("agent-authorized-keys", user="vera", keys=[OTHER_KEY])
    assert await keys_of(guest, "vera") == [KEY, OTHER_KEY]
    await guest.ask("agent-authorized-keys", user="vera", keys=[OTHER_KEY], reset=True)
    assert await keys_of(guest, "vera") == [OTHER_KEY]
    kind, _ = await refused(guest, "agent-authorized-keys", user="gone", keys=[KEY])
    assert kind == "AgentRefused"


async def test_a_pause_is_made_up_for_in_the_guests_clock(guest: Place) -> None:
    await guest.ask("stop")
    await guest.until(lambda report: report.phase == "Paused")
    await guest.ask("agent-ping")
    kind, text = await refused(guest, "agent-exec", command="/bin/true")
    assert (kind, "paused" in text) == ("AgentTimeout", True)
    await asyncio.sleep(30)
    await guest.ask("cont")
    await guest.until(lambda report: report.phase == "Running")
    async with asyncio.timeout(PATIENCE):
        while time.time() - float(await guest.run("date +%s.%N")) > 15:
            await asyncio.sleep(1)


async def test_an_agent_that_stands_still_confuses_nobody_when_it_goes_on(guest: Place) -> None:
    await guest.run(
        "nohup sh -c 'sleep 2; kill -STOP $(pidof qemu-ga); sleep 25; kill -CONT $(pidof qemu-ga)'"
        " >/dev/null 2>&1 &"
    )
    kind = ""
    async with asyncio.timeout(PATIENCE):
        while not kind:
            try:
                await guest.ask("agent-ping", timeoutSeconds=3)
                await asyncio.sleep(0.2)
            except CommandFailed as error:
                kind = error.error_class
    assert kind == "AgentTimeout"
    for number in range(3):
        # Each of these is in its port, and answered later, when nobody waits for it any more.
        await refused(guest, "agent-exec", command="echo", args=[f"old {number}"], timeoutSeconds=2)
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(CommandFailed):
                await guest.ask("agent-ping", timeoutSeconds=3)
                break
    done = await guest.ask("agent-exec", command="echo", args=["new"], timeoutSeconds=60)
    assert done == {"exitCode": 0, "stdout": "new\n"}


async def test_an_older_agent_gets_its_keys_written(guest: Place) -> None:
    await guest.run(
        "mkdir -p /etc/qemu && printf '[general]\\nblacklist=guest-ssh-add-authorized-keys\\n'"
        " > /etc/qemu/qemu-ga.conf && (sleep 1; systemctl restart qemu-guest-agent) >/dev/null 2>&1 &"
    )
    await guest.until(lambda report: not (report.agent and report.agent.connected))
    await guest.until(lambda report: bool(report.agent and report.agent.connected))
    await guest.ask("agent-authorized-keys", user="vera", keys=[KEY])
    assert await keys_of(guest, "vera") == [KEY]
    assert await guest.run("stat -c '%U %a' ~vera/.ssh/authorized_keys") == "vera 600\n"
    kind, text = await refused(guest, "agent-authorized-keys", user="gone", keys=[KEY])
    assert (kind, "gone" in text) == ("AgentRefused", True)


async def test_a_soft_reboot(guest: Place) -> None:
    before = await guest.run("cat /proc/sys/kernel/random/boot_id")
    await guest.ask("agent-shutdown", mode="reboot")
    await guest.until(lambda report: not (report.agent and report.agent.connected), BOOT)
    await guest.until(lambda report: bool(report.agent and report.agent.connected), BOOT)
    assert await guest.run("cat /proc/sys/kernel/random/boot_id") != before
