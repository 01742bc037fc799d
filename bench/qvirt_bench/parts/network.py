"""What our bridge and our masquerading cost a guest: streams and round trips between it and another pod, against a tap made by hand."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from qvirt_bench import image_root, network_ends, threads, traffic
from qvirt_bench.conditions import accelerator
from qvirt_bench.errors import BenchError
from qvirt_bench.figures import Curve, Figure, Measured, Plot
from qvirt_bench.network_ends import Guest
from qvirt_crds.report import Accel

Case = Literal["bridge", "masquerade", "by hand"]
#: Of the baseline's throughput, and (inverted) of its round trips' time.
_AIMS: Final[Mapping[Case, float]] = {"bridge": 0.97, "masquerade": 0.85}
_ROUNDS: Final = 10
_SECONDS: Final = 1.0
_TRIPS: Final = 200
_MESSAGE: Final = 64
#: For the plot: bytes of a message, and how many of each.
_SIZES: Final = (64, 4096, 16384, 32768, 65536)
_TRIPS_OF_A_SIZE: Final = 30
_BASELINE: Final = "QEMU by hand on a tap and bridge by ip(8)"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of one guest."""

    #: Mbit/s that the guest sends and receives.
    sends: float
    receives: float
    #: CPU seconds of QEMU for a GB, each way.
    sends_cpu: float
    receives_cpu: float
    #: Microseconds of a small message's round trip.
    trip: float
    slow_trip: float


async def measure() -> Measured:
    """All three guests run all the time; each has its turn in every round, and another one is first each time."""
    root = image_root.unpack(image_root.archive_of("launcher"))
    accel = accelerator()
    async with contextlib.AsyncExitStack() as stack:
        guests = await _boot(stack, root, accel)
        for case in guests:
            await _turn(case, guests[case])
        samples: dict[Case, list[Sample]] = {case: [] for case in guests}
        order = list(guests)
        for _ in range(_ROUNDS):
            for case in order:
                samples[case].append(await _turn(case, guests[case]))
            order.append(order.pop(0))
        curves = tuple([await _curve(case, guest) for case, guest in guests.items()])
        offloads = {case: guest.offloads for case, guest in guests.items()}
    return Measured(
        figures=_figures(samples),
        notes=_notes(accel, offloads),
        plots=(
            Plot(
                title="Round trip of a message over its size",
                x="KiB",
                y="microseconds",
                curves=curves,
            ),
        ),
    )


async def _boot(stack: contextlib.AsyncExitStack, root: Path, accel: Accel) -> dict[Case, Guest]:
    launcher, by_hand = network_ends.by_launcher, network_ends.by_hand
    return {
        "by hand": await stack.enter_async_context(by_hand(root, accel)),
        "bridge": await stack.enter_async_context(launcher(root, "takeover", accel)),
        "masquerade": await stack.enter_async_context(launcher(root, "masquerade", accel)),
    }


async def _turn(case: Case, guest: Guest) -> Sample:
    """:raise BenchError: nothing passed for long."""
    try:
        return await _sample(guest)
    except TimeoutError as error:
        raise BenchError(f"{case}: a connection with its guest stood still") from error


async def _sample(guest: Guest) -> Sample:
    def whole() -> float:
        return threads.of(guest.qemu).whole

    with await guest.pair.connect(network_ends.SOURCE) as sock:
        sends = await asyncio.to_thread(traffic.received, sock, _SECONDS, whole)
    with await guest.pair.connect(network_ends.SINK) as sock:
        receives = await asyncio.to_thread(traffic.sent, sock, _SECONDS, whole)
    with await guest.pair.connect(network_ends.ECHO) as sock:
        trips = await asyncio.to_thread(traffic.round_trips, sock, _MESSAGE, _TRIPS)
    return Sample(
        sends=round(sends.mbit, 1),
        receives=round(receives.mbit, 1),
        sends_cpu=_cost(sends),
        receives_cpu=_cost(receives),
        trip=round(statistics.median(trips), 1),
        slow_trip=round(statistics.quantiles(trips, n=100)[98], 1),
    )


def _cost(stream: traffic.Stream) -> float:
    return round(stream.spent / (stream.octets / 1e9), 3)


async def _curve(case: Case, guest: Guest) -> Curve:
    points: list[tuple[float, float]] = []
    with await guest.pair.connect(network_ends.ECHO) as sock:
        for size in _SIZES:
            trips = await asyncio.to_thread(traffic.round_trips, sock, size, _TRIPS_OF_A_SIZE)
            points.append((size / 1024, round(statistics.median(trips), 1)))
    return Curve(name=case, points=tuple(points))


def _figures(samples: Mapping[Case, list[Sample]]) -> tuple[Figure, ...]:
    def figure(
        case: Case, name: str, unit: str, of: Callable[[Sample], float], aim: float | None
    ) -> Figure:
        return Figure(
            name=f"{case}: {name}",
            unit=unit,
            ours=tuple(map(of, samples[case])),
            baseline=tuple(map(of, samples["by hand"])),
            baseline_name=_BASELINE,
            kind="ratio",
            aim=aim,
            better="more" if unit == "Mbit/s" else "less",
        )

    return tuple(
        made
        for case, aim in _AIMS.items()
        for made in (
            figure(case, "TCP, guest sends", "Mbit/s", lambda s: s.sends, aim),
            figure(case, "TCP, guest receives", "Mbit/s", lambda s: s.receives, aim),
            figure(
                case, "round trip of 64 bytes, median", "µs", lambda s: s.trip, round(1 / aim, 3)
            ),
            figure(case, "round trip of 64 bytes, P99", "µs", lambda s: s.slow_trip, None),
            figure(case, "CPU of QEMU, guest sends", "s/GB", lambda s: s.sends_cpu, None),
            figure(
                *(case, "CPU of QEMU, guest receives", "s/GB"),
                lambda s: s.receives_cpu,
                None,
            ),
        )
    )


def _notes(accel: Accel, offloads: Mapping[Case, tuple[str, ...]]) -> tuple[str, ...]:
    said = "; ".join(f"{case}: {', '.join(names)}" for case, names in offloads.items())
    notes: tuple[str, ...] = (
        "One demo guest for each case, all running; its pod's namespace is wired to another one, from where a TCP stream of "
        f"{_SECONDS:g} s each way and {_TRIPS} round trips, one after another, are measured, {_ROUNDS} times in turns. An aim for time is "
        "the throughput's, inverted.",
        f"Offloads that card and driver agreed on: {said}.",
    )
    if accel == "tcg":
        notes += (
            "Without KVM the guest's processor is the bottleneck of every stream. QEMU's CPU time is of all its threads: the guest's code, and "
            "reading and writing the tap, which includes bridge, packet filter and NAT on the way out.",
        )
    return notes
