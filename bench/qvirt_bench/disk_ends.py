"""Guests with two disks to measure: a raw file, as a claim's is, and an overlay over a qcow2, as a containerDisk's is."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import msgspec

from qvirt_bench import byhand, image_root, pod, shell, smaps
from qvirt_crds import names
from qvirt_crds.report import Accel, LocalVolume
from qvirt_crds.sync import SyncArguments

#: The disk's image: the first half is read and the second half written, so that an overlay's reads come from its base.
SIZE: Final = 128 << 20
_RAW: Final = "raw.img"
_BASE: Final = "base.qcow2"
#: As the guest sees the two, behind its root disk.
DEVICES: Final = {"raw file": "/dev/vdb", "overlay": "/dev/vdc"}
_READY: Final = "test -b /dev/vdc"


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """A guest with the disks in `DEVICES`."""

    qemu: int
    shell: shell.Shell


@contextlib.asynccontextmanager
async def by_launcher(root: Path, accel: Accel) -> AsyncIterator[Guest]:
    """As the launcher makes it of a claim and of a containerDisk."""
    with _images() as disks:
        async with pod.started(root, disks=disks) as one:
            await one.connect()
            await one.sync(_guest(accel))
            await one.running()
            async with shell.opened(one.run_dir / names.CONSOLE_SOCKET) as inside:
                await inside.run(_READY)
                yield Guest(qemu=smaps.qemu_of(one.process.pid), shell=inside)


@contextlib.asynccontextmanager
async def by_hand(root: Path, accel: Accel) -> AsyncIterator[Guest]:
    """What an administrator would write."""

    with _images() as disks:

        def overlays(run_dir: Path) -> None:
            byhand.overlay(run_dir, "root", disks / pod.DEMO_DISK.name)
            byhand.overlay(run_dir, "scratch", disks / _BASE)

        argv = (*byhand.board(accel), *_drives())
        async with (
            byhand.launched(root, argv, overlays, disks=disks) as machine,
            _running(machine) as guest,
        ):
            yield guest


@contextlib.asynccontextmanager
async def _running(machine: byhand.Machine) -> AsyncIterator[Guest]:
    await machine.run()
    async with shell.opened(machine.run_dir / names.SERIAL_SOCKET) as inside:
        await inside.run(_READY)
        yield Guest(qemu=machine.qemu, shell=inside)


def _drives() -> tuple[str, ...]:
    files = {
        "root": "/run/qvirt/disks/root.qcow2,format=qcow2",
        "raw": f"/disks/{_RAW},format=raw",
        "scratch": "/run/qvirt/disks/scratch.qcow2,format=qcow2",
    }
    words: list[str] = ["-object", "iothread,id=io1"]
    for name, file in files.items():
        words += ("-drive", f"id={name},file={file},if=none,cache=none,aio=native,discard=unmap")
        words += ("-device", f"virtio-blk-pci,drive={name},iothread=io1")
    return tuple(words)


def _guest(accel: Accel) -> SyncArguments:
    devices = {
        "autoattachGraphicsDevice": False,
        "autoattachPodInterface": False,
        "disks": [{"name": name, "disk": {"bus": "virtio"}} for name in ("root", "raw", "scratch")],
    }
    volumes = [
        {"name": "root", "containerDisk": {"image": "demo"}},
        {"name": "raw", "persistentVolumeClaim": {"claimName": "raw"}},
        {"name": "scratch", "containerDisk": {"image": "scratch"}},
    ]
    made = pod.guest(
        accel=accel, domain={"devices": devices}, spec={"volumes": volumes}, attachments=()
    )
    more = (
        LocalVolume(volume="raw", path=f"/disks/{_RAW}"),
        LocalVolume(volume="scratch", path=f"/disks/{_BASE}", format="qcow2", read_only=True),
    )
    return msgspec.structs.replace(made, volumes=(*made.volumes, *more))


@contextlib.contextmanager
def _images() -> Iterator[Path]:
    """A directory with a guest's own images, full of what no file system can leave out; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-disk-", dir=image_root.ROOT / "build") as name:
        directory = Path(name)
        directory.chmod(0o755)
        shutil.copy(pod.DEMO_DISK, directory)
        raw, base = directory / _RAW, directory / _BASE
        with raw.open("wb") as file:
            for _ in range(SIZE >> 20):
                file.write(os.urandom(1 << 20))
        command = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(base))
        subprocess.run(command, check=True, timeout=60)
        os.sync()
        os.chown(raw, names.RUNTIME_UID, names.RUNTIME_UID)
        yield directory
