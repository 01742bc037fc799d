"""Many idle guests at once: what each adds, with launchers and by hand, and what a node of 64 GiB would hold."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from qvirt_bench import byhand, image_root, pod, smaps
from qvirt_bench.conditions import accelerator
from qvirt_bench.figures import Curve, Figure, Measured, Plot
from qvirt_crds.sync import SyncArguments
from qvirt_launcher.settle import QUIET

T = TypeVar("T")
#: Guests that run at once; fewer where the machine is small (QVIRT_BENCH_GUESTS).
_GUESTS: Final = int(os.environ.get("QVIRT_BENCH_GUESTS", "20"))
_NODE: Final = 64 << 30
#: Seconds from the last prompt (and the launchers' own rest) until it is measured: the guests' services come up behind it.
_SETTLE: Final = 10.0
#: Kept for the system.
_RESERVED: Final = 4 << 30


async def measure() -> Measured:
    """Total PSS after each guest that has come to its prompt."""
    root = image_root.unpack(image_root.archive_of("launcher"))
    guest = pod.guest(accel=accelerator())
    async with byhand.template(root, guest) as made:
        hand = await _by_hand(root, made)
    ours = await _launchers(root, guest)
    held = tuple((_NODE - _RESERVED) // (points[-1] // _GUESTS) for points in (ours, hand))
    return Measured(
        figures=(
            Figure(
                name="idle 64 MiB guests that a node of 64 GiB holds (4 kept for itself)",
                unit="guests",
                ours=(float(held[0]),),
                baseline=(float(held[1]),),
                baseline_name="the same argv by hand",
                kind="ratio",
                aim=0.85,
                better="more",
            ),
        ),
        notes=(f"Computed from the summed PSS of {_GUESTS} running guests at their login prompt.",),
        plots=(
            Plot(
                title="PSS of all processes of idle guests",
                x="guests",
                y="MiB",
                curves=(_curve("with launchers", ours), _curve("by hand", hand)),
            ),
        ),
    )


async def _launchers(root: Path, guest: SyncArguments) -> list[int]:
    async def one(stack: contextlib.AsyncExitStack) -> pod.Pod:
        made = await stack.enter_async_context(pod.started(root))
        await made.connect()
        await made.sync(guest)
        await made.running()
        await made.prompt()
        return made

    async with contextlib.AsyncExitStack() as stack:
        pods = await _boot(lambda: one(stack))
        await asyncio.sleep(QUIET + _SETTLE)
        return _growing([list(each.processes()) for each in pods])


async def _by_hand(root: Path, made: byhand.Template) -> list[int]:
    # Its monitor has a fixed number, in our process as well until it is started.
    starting = asyncio.Lock()

    async def one(stack: contextlib.AsyncExitStack) -> byhand.Machine:
        async with starting:
            machine = await stack.enter_async_context(byhand.started(root, made))
        reader = await stack.enter_async_context(machine.console())
        await machine.run()
        await pod.until(reader, pod.PROMPT)
        return machine

    async with contextlib.AsyncExitStack() as stack:
        machines = await _boot(lambda: one(stack))
        await asyncio.sleep(_SETTLE)
        return _growing([[each.qemu] for each in machines])


async def _boot(one: Callable[[], Awaitable[T]]) -> list[T]:
    """As many at a time as there are processors; those that are up idle meanwhile, as on a node."""
    free = asyncio.Semaphore(os.cpu_count() or 1)

    async def boot() -> T:
        async with free:
            return await one()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(boot()) for _ in range(_GUESTS)]
    return [task.result() for task in tasks]


def _growing(groups: list[list[int]]) -> list[int]:
    """Sums over the first, the first two, and so on, all running."""
    total, found = 0, []
    for pids in groups:
        total += smaps.of_processes(pids).pss
        found.append(total)
    return found


def _curve(name: str, points: list[int]) -> Curve:
    return Curve(
        name=name,
        points=tuple((float(n), round(p / smaps.MIB, 1)) for n, p in enumerate(points, start=1)),
    )
