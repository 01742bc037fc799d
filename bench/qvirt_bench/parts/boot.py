"""Whether the machine that a launcher made is as fast as the same command line by hand: running -> login prompt."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from qvirt_bench import byhand, image_root, pod
from qvirt_bench.conditions import accelerator
from qvirt_bench.figures import Figure, Measured
from qvirt_crds.sync import SyncArguments

_RUNS: Final = 5


async def measure() -> Measured:
    """In turns: launcher, by hand."""
    root = image_root.unpack(image_root.archive_of("launcher"))
    guest = pod.guest(accel=accelerator())
    ours, hand = [], []
    async with byhand.template(root, guest) as made:
        for _ in range(_RUNS):
            ours.append(await _launcher(root, guest))
            hand.append(await _by_hand(root, made))
    figure = Figure(
        name="running -> login prompt on the serial console",
        unit="s",
        ours=tuple(ours),
        baseline=tuple(hand),
        baseline_name="the same argv started by hand",
        kind="ratio",
        aim=1.03,
    )
    note = "The demo guest (64 MiB, one CPU) from its disk, its console read through the launcher's fan-out and from QEMU's socket."
    return Measured(figures=(figure,), notes=(note,))


async def _launcher(root: Path, guest: SyncArguments) -> float:
    async with pod.started(root) as one:
        await one.connect()
        await one.sync(guest)
        await one.running()
        begun = time.monotonic()
        await one.prompt()
        return round(time.monotonic() - begun, 3)


async def _by_hand(root: Path, made: byhand.Template) -> float:
    async with byhand.started(root, made) as machine, machine.console() as reader:
        await machine.run()
        begun = time.monotonic()
        await pod.until(reader, pod.PROMPT)
        await asyncio.sleep(0)
        return round(time.monotonic() - begun, 3)
