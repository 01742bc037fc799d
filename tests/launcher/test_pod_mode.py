"""virt-launcher in a pod: a process namespace of its own, a sidecar that holds the disk, user 107, a real guest."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from qvirt_crds import pod_layout
from qvirt_crds.defaults import apply_defaults
from qvirt_crds.names import RUNTIME_UID
from qvirt_crds.report import VmReport
from qvirt_crds.sync import SyncArguments
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_qmp.client import Monitor, connect_unix
from qvirt_qmp.errors import ConnectFailed

DEMO_DISK = Path(__file__).resolve().parents[2] / "build/guest/demo-guest.qcow2"
UUID = "5d307ca9-b3ef-428c-8861-06e72d69f223"
DEADLINE = 90.0

pytestmark = [pytest.mark.root, pytest.mark.qemu]


class Pod:
    """A launcher and one holder below a first process that waits for both, as a pod's does."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self.process = process

    async def connect(self) -> Monitor:
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    return await connect_unix(str(self.folder / "run/launcher.sock"))
                except ConnectFailed:
                    assert self.process.returncode is None, self.log
                    await asyncio.sleep(0.05)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    async def exit_codes(self) -> dict[str, int]:
        """Of all containers, once the pod has ended."""
        async with asyncio.timeout(DEADLINE):
            await self.process.wait()
        words = (self.folder / "codes").read_text().split()
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))

    async def until(self, sign: str) -> None:
        """Until the guest says it on its serial console."""
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "run/console.sock"))
        seen = b""
        try:
            async with asyncio.timeout(DEADLINE):
                while sign.encode() not in seen:
                    chunk = await reader.read(4096)
                    assert chunk, seen.decode(errors="replace")
                    seen += chunk
        finally:
            writer.close()
            await writer.wait_closed()


def image(folder: Path, program: Path, *disks: Path) -> Path:
    """An image's root with a holder's program, as a container runtime makes it."""
    root = folder / "image"
    (root / "disk").mkdir(parents=True)
    holder = root / pod_layout.HOLDER_PROGRAM.removeprefix("/")
    holder.parent.mkdir()
    shutil.copy(program, holder)
    pipe = root / pod_layout.HOLDER_PIPE.removeprefix("/")
    os.mkfifo(pipe, 0o600)
    os.chown(pipe, RUNTIME_UID, RUNTIME_UID)
    for disk in disks:
        shutil.copy(disk, root / "disk")
    (root / "dev").mkdir()
    os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(root / "dev/null", 0o666)
    return root


@pytest.fixture
async def pod(request: pytest.FixtureRequest, holder_program: Path) -> AsyncIterator[Pod]:
    """The test's parameter is the list of disks in the image."""
    folder = Path("/tmp") / f"qvirt-pod-{os.getpid()}"
    folder.mkdir(mode=0o711)
    (folder / "run").mkdir()
    os.chown(folder / "run", RUNTIME_UID, RUNTIME_UID)
    root = image(folder, holder_program, *request.param)
    script = folder / "pause"
    script.write_text(
        'root=$1; shift; launcher="$1 -P -m qvirt_launcher.main --pod --run-dir $2/run"; folder=$2; shift 2\n'
        'chroot --userspec=107:107 "$root" "$@" & holder=$!\n'
        '$launcher --user 107:107 --namespace default --name demo 2>"$folder/log" & launcher=$!\n'
        "wait $launcher; launched=$?; wait $holder\n"
        'echo "compute $launched holder $?" >"$folder/codes"\n'
    )
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"),
        *("sh", str(script), str(root), sys.executable, str(folder)),
        *pod_layout.holder_command("root"),
    )
    try:
        yield Pod(folder, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        shutil.rmtree(folder)


def vmi() -> VirtualMachineInstance:
    given = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "demo", "namespace": "default", "uid": "one"},
        "spec": {
            "domain": {
                "memory": {"guest": "64Mi"},
                "devices": {
                    "autoattachPodInterface": False,
                    "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                },
            },
            "volumes": [{"name": "root", "containerDisk": {"image": "demo"}}],
        },
    }
    return apply_defaults(msgspec.convert(given, VirtualMachineInstance), new_uuid=lambda: UUID)


async def sync(monitor: Monitor) -> None:
    await monitor.execute("vm-sync", msgspec.to_builtins(SyncArguments(vmi=vmi())))


async def report(monitor: Monitor, *phases: str) -> VmReport:
    async with asyncio.timeout(DEADLINE):
        while True:
            found = msgspec.convert(await monitor.execute("vm-query"), VmReport)
            if found.phase in phases:
                return found
            await asyncio.sleep(0.05)


@pytest.mark.guest
@pytest.mark.skipif(not DEMO_DISK.exists(), reason="needs the demo guest: make guest")
@pytest.mark.parametrize("pod", [(DEMO_DISK,)], indirect=True)
async def test_a_guest_boots_from_its_sidecar_and_the_pod_ends_with_it(pod: Pod) -> None:
    monitor = await pod.connect()
    await sync(monitor)
    running = await report(monitor, "Running")
    assert any('"/proc/' in word and "/root/disk/demo-guest.qcow2" in word for word in running.argv)
    await pod.until("login: ")
    await monitor.execute("vm-stop", {"gracePeriodSeconds": 60})
    assert await pod.exit_codes() == {"compute": 0, "holder": 0}
    await monitor.aclose()


@pytest.mark.parametrize("pod", [()], indirect=True)
async def test_an_image_without_a_disk_is_told_and_the_pod_ends(pod: Pod) -> None:
    monitor = await pod.connect()
    await sync(monitor)
    assert await pod.exit_codes() == {"compute": 4, "holder": 0}
    assert "no file found in folder /disk, no disk present" in pod.log
    await monitor.aclose()
