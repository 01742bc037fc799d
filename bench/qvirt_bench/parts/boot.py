"""Whether the machine that a launcher made is as fast as the same command line by hand: running -> login prompt."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import msgspec

from qvirt_bench import byhand, image_root, pod, smaps
from qvirt_bench.conditions import accelerator
from qvirt_bench.figures import Figure, Measured
from qvirt_crds.sync import SyncArguments

#: Pairs; each begins with the other one than the pair before.
_PAIRS: Final = 8


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """One boot, from running to the prompt. Seconds."""

    wall: float
    #: CPU time of QEMU, and of everything beside it.
    qemu: float
    rest: float


async def measure() -> Measured:
    """In turns: launcher, by hand, by hand, launcher..."""
    root = image_root.unpack(image_root.archive_of("launcher"))
    guest = pod.guest(accel=accelerator())
    ours, hand = [], []
    async with byhand.template(root, guest) as made:
        for pair in range(_PAIRS):
            if pair % 2:
                hand.append(await _by_hand(root, made))
            ours.append(await _launcher(root, guest))
            if not pair % 2:
                hand.append(await _by_hand(root, made))
    return Measured(figures=_figures(tuple(ours), tuple(hand)), notes=_NOTES)


def _figures(ours: tuple[Boot, ...], hand: tuple[Boot, ...]) -> tuple[Figure, ...]:
    by_hand = "the same argv started by hand"
    return (
        Figure(
            name="running -> login prompt on the serial console",
            unit="s",
            ours=tuple(boot.wall for boot in ours),
            baseline=tuple(boot.wall for boot in hand),
            baseline_name=by_hand,
            kind="ratio",
            aim=1.03,
        ),
        Figure(
            name="of it, CPU time of QEMU",
            unit="s",
            ours=tuple(boot.qemu for boot in ours),
            baseline=tuple(boot.qemu for boot in hand),
            baseline_name=by_hand,
            kind="ratio",
        ),
        Figure(
            name="CPU time of the launcher meanwhile",
            unit="s",
            ours=tuple(boot.rest for boot in ours),
            baseline=tuple(boot.qemu for boot in ours),
            baseline_name="its QEMU's",
            kind="value",
        ),
    )


_NOTES: Final = (
    "The demo guest (64 MiB, one CPU) from its disk, its console read through the launcher's fan-out and from QEMU's socket.",
    "CPU time says what the launcher's arrangement costs where wall time is made by what else the machine has to do.",
)


async def _launcher(root: Path, guest: SyncArguments) -> Boot:
    async with pod.started(root) as one:
        await one.connect()
        await one.sync(guest)
        await one.running()
        watch = _Watch(smaps.qemu_of(one.process.pid), one.launcher)
        await one.prompt()
        return watch.read()


async def _by_hand(root: Path, made: byhand.Template) -> Boot:
    async with byhand.started(root, made) as machine, machine.console() as reader:
        await machine.run()
        watch = _Watch(machine.qemu)
        await pod.until(reader, pod.PROMPT)
        return watch.read()


class _Watch:
    """Stopped by `read`.

    :param others: processes beside QEMU.
    """

    def __init__(self, qemu: int, *others: int) -> None:
        self._qemu = qemu
        self._others = others
        self._ticks = self._look()
        self._begun = time.monotonic()

    def read(self) -> Boot:
        wall = time.monotonic() - self._begun
        qemu, rest = (
            after - before for after, before in zip(self._look(), self._ticks, strict=True)
        )
        return Boot(
            wall=round(wall, 3), qemu=round(qemu / smaps.TICK, 2), rest=round(rest / smaps.TICK, 2)
        )

    def _look(self) -> tuple[int, int]:
        return smaps.cpu_ticks(self._qemu), sum(map(smaps.cpu_ticks, self._others))
