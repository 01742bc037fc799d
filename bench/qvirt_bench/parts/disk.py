"""Whether a guest's disk is as fast as an administrator would make it: reads and writes around the guest's page cache."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

from qvirt_bench import disk_ends, image_root, threads
from qvirt_bench.conditions import accelerator
from qvirt_bench.disk_ends import Guest
from qvirt_bench.errors import BenchError
from qvirt_bench.figures import Curve, Figure, Measured, Plot, spread
from qvirt_crds.report import Accel

Case = Literal["launcher", "by hand"]
_AIM: Final = 0.97
_ROUNDS: Final = 32
_SECONDS: Final = 0.15
_HALF: Final = disk_ends.SIZE // 2
#: ioping(1): -L one after another instead of at random places, -WWW write, -o where the working set begins.
_TESTS: Final[Mapping[str, str]] = {
    "reads of 4 KiB at random": "-s 4k",
    "reads of 1 MiB in sequence": "-L -s 1m",
    "writes of 4 KiB at random": f"-WWW -s 4k -o {_HALF}",
    "writes of 1 MiB in sequence": f"-WWW -L -s 1m -o {_HALF}",
}
#: For the plot: KiB of a read.
_SIZES: Final = (4, 64, 256, 512, 1024)
_BASELINE: Final = "QEMU by hand: cache=none, aio=native, an I/O thread"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One run of ioping, one request after another."""

    #: Per second.
    requests: float
    #: Microseconds of CPU of QEMU's threads but the vCPU, for each request.
    cpu: float


_Samples = dict[tuple[str, str, Case], list[Sample]]
_Kind = Literal["reads", "writes"]


async def measure() -> Measured:
    """Both guests run all the time; each has its turn in every test of every round."""
    root = image_root.unpack(image_root.archive_of("launcher"))
    accel = accelerator()
    samples: _Samples = {}
    async with contextlib.AsyncExitStack() as stack:
        guests = await _boot(stack, root, accel)
        for guest in guests.values():
            threads.part(guest.qemu)
        order = list(guests)
        # The first round allocates the greater part of what an overlay's writes need, on both sides, and does not count.
        for number in range(_ROUNDS + 1):
            for disk, device in disk_ends.DEVICES.items():
                for test, options in _TESTS.items():
                    for case in order:
                        sample = await _ioping(guests[case], options, device)
                        if number:
                            samples.setdefault((disk, test, case), []).append(sample)
            order.append(order.pop(0))
        curves = tuple([await _curve(case, guest) for case, guest in guests.items()])
    plot = Plot(title="Time of a read of the raw file", x="KiB", y="microseconds", curves=curves)
    return Measured(
        figures=(
            _figure(samples, "reads"),
            _figure(samples, "writes"),
            *(_detail(samples, disk, test) for disk in disk_ends.DEVICES for test in _TESTS),
        ),
        notes=_notes(accel, samples),
        plots=(plot,),
        table=_table(samples),
    )


async def _boot(stack: contextlib.AsyncExitStack, root: Path, accel: Accel) -> dict[Case, Guest]:
    return {
        "launcher": await stack.enter_async_context(disk_ends.by_launcher(root, accel)),
        "by hand": await stack.enter_async_context(disk_ends.by_hand(root, accel)),
    }


async def _ioping(guest: Guest, options: str, device: str) -> Sample:
    before = threads.of(guest.qemu).devices
    said = await guest.shell.run(f"ioping -R -q -B -D -w {_SECONDS} -S {_HALF} {options} {device}")
    spent = threads.of(guest.qemu).devices - before
    # ioping(1), raw statistics: requests, their time in ns, requests/s, bytes/s, and more.
    words = said.split()
    if len(words) < 4 or not words[0].isdigit() or words[0] == "0":
        raise BenchError(f"ioping says {said!r}")
    return Sample(requests=float(words[2]), cpu=round(spent / int(words[0]) * 1e6, 1))


async def _curve(case: Case, guest: Guest) -> Curve:
    points: list[tuple[float, float]] = []
    for size in _SIZES:
        sample = await _ioping(guest, f"-s {size}k", disk_ends.DEVICES["raw file"])
        points.append((size, round(1e6 / sample.requests, 1)))
    return Curve(name=case, points=tuple(points))


def _ratios(samples: _Samples, kind: _Kind) -> tuple[float, ...]:
    """Of each pair that was measured one after the other: what else the machine does hits both."""
    pairs = (
        pair
        for disk in disk_ends.DEVICES
        for test in _TESTS
        if test.startswith(kind)
        for pair in zip(
            samples[disk, test, "launcher"], samples[disk, test, "by hand"], strict=True
        )
    )
    return tuple(round(ours.requests / theirs.requests, 4) for ours, theirs in pairs)


def _figure(samples: _Samples, kind: _Kind) -> Figure:
    return Figure(
        name=f"disk {kind}, all tests: launcher's rate / by hand, pair by pair",
        unit="x",
        ours=_ratios(samples, kind),
        baseline=(1.0,),
        baseline_name=_BASELINE,
        kind="value",
        aim=_AIM,
        better="more",
    )


def _detail(samples: _Samples, disk: str, test: str) -> Figure:
    return Figure(
        name=f"of it, {disk}: {test}",
        unit="requests/s",
        ours=tuple(sample.requests for sample in samples[disk, test, "launcher"]),
        baseline=tuple(sample.requests for sample in samples[disk, test, "by hand"]),
        baseline_name=_BASELINE,
        kind="ratio",
    )


def _table(samples: _Samples) -> tuple[tuple[str, ...], ...]:
    cases: tuple[Case, ...] = ("launcher", "by hand")
    rows = [
        ("disk", "requests", *(f"{c}, requests/s" for c in cases), *(f"{c}, CPU µs" for c in cases))
    ]
    for disk in disk_ends.DEVICES:
        for test in _TESTS:
            found = [samples[disk, test, case] for case in cases]
            rates = (spread(tuple(sample.requests for sample in each)) for each in found)
            costs = (f"{statistics.median(sample.cpu for sample in each):.4g}" for each in found)
            rows.append((disk, test, *rates, *costs))
    return tuple(rows)


def _uncertainty(ratios: tuple[float, ...]) -> float:
    """One standard error of their mean."""
    return statistics.stdev(ratios) / math.sqrt(len(ratios))


def _notes(accel: Accel, samples: _Samples) -> tuple[str, ...]:
    sure = {kind: _uncertainty(_ratios(samples, kind)) for kind in get_args(_Kind)}
    notes: tuple[str, ...] = (
        f"ioping in the guest, O_DIRECT, one request after another for {_SECONDS:g} s, {_ROUNDS} times in turns; every guest has its own "
        f"copies of the images on the same file system. Reads are of the first {_HALF >> 20} MiB (of an overlay: from its base), writes of "
        "the second (of an overlay: the greater part is allocated in a round that does not count).",
        "Samples scatter (the table's spreads), so one test's ratio says little about a few percent; the aim is held against all pairs of a kind, whose "
        f"mean is uncertain by {sure['reads']:.1%} (reads) and {sure['writes']:.1%} (writes), one standard error.",
        "Each QEMU's vCPU has one processor and its other threads another, on both sides: where the scheduler puts them makes more of a "
        "difference than what is measured. The table has what each request costs in CPU time of the threads that serve devices (not the vCPU).",
    )
    if accel == "tcg":
        notes += (
            "Without KVM, a small request's time is the emulated processor's for the greater part.",
        )
    return notes
