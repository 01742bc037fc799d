"""A launcher from its image in namespaces of its own, as a container runtime would start it: chroot, PID 1, user 107.

No kubelet and no network of a pod: what is measured is the launcher, not what started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from qvirt_bench import smaps
from qvirt_bench.errors import BenchError
from qvirt_bench.image_root import ROOT
from qvirt_crds import names, pod_layout
from qvirt_crds.defaults import apply_defaults
from qvirt_crds.report import AccelChoice, Attachment, LocalVolume, VmReport
from qvirt_crds.sync import SyncArguments
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_qmp.client import Monitor, connect_unix
from qvirt_qmp.errors import ConnectFailed

DEMO_DISK: Final = ROOT / "build" / "guest" / "demo-guest.qcow2"
PROMPT: Final = b"login:"
#: Seconds that a guest may take to boot on a busy machine without KVM.
DEADLINE: Final = 180.0
_UUID: Final = "5d307ca9-b3ef-428c-8861-06e72d69f223"
_MAC: Final = "02:00:00:00:00:01"
_POLL_SECONDS: Final = 0.002
#: $1 the root, $2 the pod's directory, $3 the directory with disks; the rest is the container's command.
_ENTER: Final = """
set -e
root=$1 pod=$2 disks=$3; shift 3
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/net"
for node in null zero random urandom kvm $DEVICES; do
    [ -e "/dev/$node" ] || continue
    : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount --bind "$pod/run" "$root/run/qvirt"
mount --bind "$pod/holder" "$root/qvirt-holder"
mount --bind "$disks" "$root/disks"
exec env -i PATH=/usr/bin:/usr/sbin LANG=C.UTF-8 PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 HOME=/ \\
    "$CHROOT" --userspec="$RUNS_AS" "$root" "$@"
"""


class Pod:
    """A launcher that was started by `started`, and its monitor."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path) -> None:
        self.process = process
        self.run_dir = directory / "run"
        self._directory = directory
        self._log = directory / "log"
        self.begun = time.monotonic()
        self.monitor: Monitor | None = None

    @property
    def log(self) -> str:
        """What launcher and QEMU said."""
        return self._log.read_text(errors="replace")

    @property
    def launcher(self) -> int:
        """The launcher's pid, seen from here."""
        for pid, name in smaps.descendants(self.process.pid).items():
            if name in ("virt-launcher", "python3") and pid != self.process.pid:
                return pid
        raise BenchError(f"the launcher is gone: {self.log}")

    def processes(self) -> dict[int, str]:
        """All processes of the pod, by pid."""
        found = smaps.descendants(self.process.pid)
        del found[self.process.pid]
        return found

    async def connect(self) -> Monitor:
        """A session on the control socket, as soon as there is one."""
        async with asyncio.timeout(DEADLINE):
            while self.process.returncode is None:
                try:
                    self.monitor = await connect_unix(str(self.run_dir / names.CONTROL_SOCKET))
                except ConnectFailed:
                    await asyncio.sleep(_POLL_SECONDS)
                else:
                    return self.monitor
        raise BenchError(f"the launcher ended: {self.log}")

    async def sync(self, arguments: SyncArguments, fds: Sequence[int] = ()) -> None:
        """Hand the guest over."""
        monitor = self.monitor or await self.connect()
        await monitor.execute("vm-sync", msgspec.to_builtins(arguments), fds=fds)

    async def running(self) -> VmReport:
        """The report, as soon as the guest runs.

        :raise BenchError: it does not come up.
        """
        return await self.phase("Running")

    async def phase(self, *phases: str) -> VmReport:
        """The report, as soon as the phase is one of these.

        :raise BenchError: it does not come up.
        """
        assert self.monitor is not None
        async with asyncio.timeout(DEADLINE):
            while True:
                report = msgspec.convert(await self.monitor.execute("vm-query"), VmReport)
                if report.phase in phases:
                    return report
                if report.phase in ("Failed", "Succeeded"):
                    raise BenchError(f"the guest did not come up: {report.message}\n{self.log}")
                await asyncio.sleep(_POLL_SECONDS)

    async def rest(self, seconds: float) -> None:
        """Until the launcher has done nothing for so long."""
        launcher, used, since = self.launcher, -1, time.monotonic()
        async with asyncio.timeout(DEADLINE + seconds):
            while time.monotonic() - since < seconds:
                now = smaps.cpu_ticks(launcher)
                if now != used:
                    used, since = now, time.monotonic()
                await asyncio.sleep(1)

    async def prompt(self, sign: bytes = PROMPT) -> None:
        """Until the guest says this on its serial console."""
        reader, writer = await asyncio.open_unix_connection(
            str(self.run_dir / names.CONSOLE_SOCKET)
        )
        try:
            await until(reader, sign)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def started(
    root: Path,
    *,
    disks: Path = DEMO_DISK.parent,
    arguments: Sequence[str] = (),
    netns: str = "",
) -> AsyncIterator[Pod]:
    """A pod with a launcher that waits for its guest; gone afterwards, whatever happened.

    :param disks: what the pod sees as ``/disks``.
    :param netns: path of its network namespace; empty: this machine's own.
    """
    with tempfile.TemporaryDirectory(prefix="qvirt-bench-") as name:
        directory = Path(name)
        furnish(root, directory)
        command = ("virt-launcher", "--run-dir", pod_layout.RUN_DIR, "--name", "bench", *arguments)
        process = await spawn(root, directory, disks, command, netns=netns)
        pod = Pod(process, directory)
        try:
            yield pod
        finally:
            if pod.monitor is not None:
                await pod.monitor.aclose()
            await end(process)


async def spawn(
    root: Path,
    directory: Path,
    disks: Path,
    command: Sequence[str],
    fds: Mapping[int, int] = {},
    *,
    netns: str = "",
    user: str = f"{names.RUNTIME_UID}:{names.RUNTIME_UID}",
    devices: Sequence[str] = (),
) -> asyncio.subprocess.Process:
    """Run a command of the image; ``directory`` gets its log and has the run directory.

    :param fds: number in the command -> descriptor of ours.
    :param netns: path of its network namespace; empty: this machine's own.
    :param user: ``uid:gid`` that it runs as.
    :param devices: below ``/dev``, which it sees beside the usual ones if this machine has them.
    """
    inside = ("nsenter", f"--net={netns}", "--") if netns else ()
    for number, source in fds.items():
        os.dup2(source, number, inheritable=True)
    chroot = shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin:/bin") or "chroot"
    try:
        with (directory / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *inside,
                *("unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--"),
                *("sh", "-c", _ENTER, "pod", str(root), str(directory), str(disks)),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=tuple(fds),
                # Linux shares processors among sessions before it does among processes (sched(7), autogroup); a launcher's QEMU has
                # one of its own, so one by hand shall not share ours.
                start_new_session=True,
                env={
                    **os.environ,
                    "CHROOT": chroot,
                    "RUNS_AS": user,
                    "DEVICES": " ".join(devices),
                },
            )
    finally:
        for number in fds:
            os.close(number)


def furnish(root: Path, directory: Path) -> None:
    """Make a pod's directories: of the launcher's sockets, and of the program of its sidecars."""
    directory.chmod(0o755)
    for name in ("run", "holder"):
        (directory / name).mkdir()
        os.chown(directory / name, names.RUNTIME_UID, names.RUNTIME_UID)
    program = root / pod_layout.HOLDER_SOURCE.lstrip("/")
    shutil.copy(program, directory / "holder" / Path(pod_layout.HOLDER_PROGRAM).name)
    pipe = directory / "holder" / Path(pod_layout.HOLDER_PIPE).name
    os.mkfifo(pipe, 0o600)
    os.chown(pipe, names.RUNTIME_UID, names.RUNTIME_UID)


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill what was started: the first process of its process namespace, with which all others go.

    unshare's own --kill-child does not reach it: the kernel forgets that wish when a program changes its user.
    """
    first = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for pid in first.read_text().split() if first.exists() else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
    await process.wait()


async def until(reader: asyncio.StreamReader, sign: bytes) -> None:
    """Read until a text has come.

    :raise BenchError: the other end hung up first; TimeoutError: it took too long.
    """
    seen = b""
    async with asyncio.timeout(DEADLINE):
        while sign not in seen:
            chunk = await reader.read(4096)
            if not chunk:
                raise BenchError(f"the guest's console ended before {sign!r}: {seen[-2000:]!r}")
            seen = (seen + chunk)[-65536:]


def guest(
    *,
    memory: str = "64Mi",
    disk: str = DEMO_DISK.name,
    spec: Mapping[str, object] | None = None,
    domain: Mapping[str, object] | None = None,
    accel: AccelChoice = "tcg",
    attachments: tuple[Attachment, ...] = (
        Attachment(interface="default", backend="user", mac=_MAC),
    ),
) -> SyncArguments:
    """The demo guest, booted from its disk through an overlay; unless said otherwise, on user-mode networking."""
    vmi = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "bench", "namespace": "bench", "uid": "bench"},
        "spec": {
            "domain": {
                "memory": {"guest": memory},
                "devices": {
                    "autoattachGraphicsDevice": False,
                    "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                },
                **(domain or {}),
            },
            "volumes": [{"name": "root", "containerDisk": {"image": "demo"}}],
            **(spec or {}),
        },
    }
    full = apply_defaults(msgspec.convert(vmi, VirtualMachineInstance), new_uuid=lambda: _UUID)
    return SyncArguments(
        vmi=full,
        volumes=(
            LocalVolume(volume="root", path=f"/disks/{disk}", format="qcow2", read_only=True),
        ),
        attachments=attachments,
        accel=accel,
    )


def listen(path: Path) -> socket.socket:
    """A unix socket that QEMU's own can connect to."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen(1)
    return sock
