"""Launchers without guests: processes in control groups, network and mount namespaces of their own, with the launcher's socket and
its way to talk. They say that their guest runs, and nothing after.

One program that forks, so that 200 of them share their memory: ``python -m qvirt_bench.fleet.launchers virt-launcher --pod``, the
words of a launcher among them. It reads what to be from its standard input and says when all listen. They end when it does.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from qvirt_crds.names import CONTROL_SOCKET
from qvirt_crds.pod_layout import RUN_DIR
from qvirt_crds.report import GuestInterface, VmReport
from qvirt_qmp.errors import CommandFailed
from qvirt_qmp.server import Call, Server

READY: Final = b"listening\n"
_LISTENS: Final = b"1"
_FAILED: Final = b"0"
#: As many words as a small guest's command line has.
_ARGV: Final = tuple(
    f"-device virtio-blk-pci,id=disk{number},bus=pci.1,drive=x" for number in range(60)
)
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWNET: Final = 0x40000000
_MS_REC_PRIVATE: Final = 0x4000 | 1 << 18
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Launcher(msgspec.Struct, frozen=True, kw_only=True):
    """One to be."""

    name: str
    namespace: str
    #: The instance's.
    uid: str
    #: An empty one, of its pod.
    cgroup: str
    #: With prefix length.
    address: str


def main() -> None:
    """Fork, and wait to be killed."""
    launchers = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[Launcher, ...])
    heard, told = os.pipe()
    for launcher in launchers:
        if os.fork() == 0:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(heard)
            try:
                _become(launcher)
                asyncio.run(_serve(launcher, told))
            finally:
                os.write(told, _FAILED)
    for _ in launchers:
        if os.read(heard, 1) == _FAILED:
            sys.exit("one of them could not be; see above")
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    signal.pause()


def _become(launcher: Launcher) -> None:
    Path(launcher.cgroup, "cgroup.procs").write_text(str(os.getpid()))
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET), "unshare")
    _check(_libc.mount(None, b"/", None, _MS_REC_PRIVATE, None), "mount --make-rprivate /")
    _check(_libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"size=1m"), "mount tmpfs")
    os.makedirs(RUN_DIR)
    wiring = f"link add eth0 type veth peer name node0\naddr add {launcher.address} dev eth0\nlink set eth0 up\n"
    subprocess.run(["ip", "-batch", "-"], input=wiring, text=True, check=True, timeout=60)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


async def _serve(launcher: Launcher, told: int) -> None:
    report = VmReport(
        name=launcher.name,
        namespace=launcher.namespace,
        uid=launcher.uid,
        phase="Running",
        started=1.0,
        running_since=2.0,
        accel="tcg",
        qemu_version="7.2.0",
        argv=_ARGV,
        interfaces=(GuestInterface(name="default", mac="02:00:00:00:00:01", leased=True),),
    )

    async def handle(call: Call) -> object:
        if call.command != "vm-query":
            raise CommandFailed(call.command, "CommandNotFound", "no guest is here")
        return report

    server = Server(handle, greeting={"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""})
    await server.listen(f"{RUN_DIR}/{CONTROL_SOCKET}", grade="admin")
    os.write(told, _LISTENS)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
