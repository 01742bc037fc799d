"""Which images a guest still waits for: those of another process of its pod, and those that are mounted, are there."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from qvirt_crds import pod_layout
from qvirt_handler import images
from qvirt_handler.finder import Process


def vmi(*disks: str, kernel: bool = False) -> dict[str, Any]:
    volumes = [{"name": name, "containerDisk": {"image": "i"}} for name in disks]
    firmware = {"kernelBoot": {"container": {"image": "k"}}} if kernel else {}
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    return {"spec": {"volumes": [*volumes, claim], "domain": {"firmware": firmware}}}


def test_a_guest_without_images_waits_for_none() -> None:
    with Process(os.getpid()) as us:
        assert images.awaited(vmi(), us) == ()
        assert images.awaited(vmi("qvirt-none", kernel=True), us) == (
            "qvirt-none",
            pod_layout.KERNEL_BOOT,
        )


def test_a_mounted_image_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pod_layout, "image_dir", lambda name: str(tmp_path / name))
    (tmp_path / "root").mkdir()
    with Process(os.getpid()) as us:
        assert images.awaited(vmi("root", "other"), us) == ("other",)


async def test_a_held_image_is_there(
    holder_program: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # It waits for a launcher there.
    monkeypatch.setattr(pod_layout, "HOLDER_PIPE", str(tmp_path / "pipe"))
    os.mkfifo(tmp_path / "pipe")
    held = pod_layout.holder_command("qvirt-test-volume")
    holder = await asyncio.create_subprocess_exec(*held, executable=str(holder_program))
    try:
        with Process(os.getpid()) as us:
            for _ in range(200):
                if images.awaited(vmi("qvirt-test-volume", "other"), us) == ("other",):
                    return
                await asyncio.sleep(0.01)
        raise AssertionError("not seen")
    finally:
        with contextlib.suppress(ProcessLookupError):
            holder.kill()
        await holder.wait()
