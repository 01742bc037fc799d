"""How long the launcher takes beyond QEMU itself: from exec to a machine that runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from qvirt_bench import byhand, image_root, pod
from qvirt_bench.conditions import accelerator
from qvirt_bench.figures import Figure, Measured
from qvirt_crds.sync import SyncArguments

_RUNS: Final = 9


async def measure() -> Measured:
    """In turns: launcher, by hand."""
    root = image_root.unpack(image_root.archive_of("launcher"))
    guest = pod.guest(accel=accelerator())
    ours, listening, hand = [], [], []
    async with byhand.template(root, guest) as made:
        for _ in range(_RUNS):
            connected, running = await _launcher(root, guest)
            ours.append(running)
            listening.append(connected)
            hand.append(await _by_hand(root, made))
    baseline = tuple(hand)
    return Measured(
        figures=(
            Figure(
                name="exec of the launcher -> QMP says running",
                unit="ms",
                ours=tuple(ours),
                baseline=baseline,
                baseline_name="the same argv started by hand",
                kind="difference",
                aim=150.0,
            ),
            Figure(
                name="of it, until the launcher listens",
                unit="ms",
                ours=tuple(listening),
                baseline=baseline,
                baseline_name="the same argv started by hand, whole",
                kind="value",
            ),
        ),
        notes=(
            "Both through the same unshare and chroot into the launcher's image; the guest's object is sent as soon as the launcher "
            "listens; its overlay is made within the time, the one by hand beforehand. What takes how long: docs/adr/0008.",
        ),
    )


async def _launcher(root: Path, guest: SyncArguments) -> tuple[float, float]:
    async with pod.started(root) as one:
        await one.connect()
        connected = time.monotonic()
        await one.sync(guest)
        await one.running()
        running = time.monotonic()
    return _ms(connected - one.begun), _ms(running - one.begun)


async def _by_hand(root: Path, made: byhand.Template) -> float:
    async with byhand.started(root, made) as machine:
        await machine.run()
        return _ms(time.monotonic() - machine.begun)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
