"""The command `python -m qvirt_bench.soak`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from qvirt_bench import conditions, live
from qvirt_bench.errors import BenchError, first
from qvirt_bench.image_root import ROOT
from qvirt_bench.soak import page, rounds

_NAMESPACE: Final = "qvirt-soak"
_HOUR: Final = 3600.0
_SHORTEST: Final = 60.0
_GUESTS_FOR_EACH_CPU: Final = 2
_RECORD: Final = ROOT / "build" / "soak" / "samples.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: all is flat and well; 1: not, or it could not be measured; 130: interrupted, and all is cleaned up."""
    parser = argparse.ArgumentParser(
        prog="python -m qvirt_bench.soak",
        description="Use qvirt on a real cluster for long, restart its components, and see whether anything grows; write docs/soak.md.",
    )
    add = parser.add_argument
    add("--duration", type=float, default=_HOUR, metavar="SECONDS", help="default: an hour")
    add(
        "--guests",
        type=int,
        default=_GUESTS_FOR_EACH_CPU * (os.cpu_count() or 1),
        metavar="N",
        help="in each round, besides the residents (default: two for each CPU)",
    )
    add("--seed", type=int, default=1, metavar="N", help="of the order in which things happen")
    add("--output", type=Path, default=ROOT / "docs", metavar="DIR")
    options = parser.parse_args(arguments)
    if options.duration < _SHORTEST or options.guests < 1:
        parser.error(f"at least {_SHORTEST:.0f} s and one guest")
    plan = rounds.Plan(seconds=options.duration, guests=options.guests, seed=options.seed)
    busy = conditions.at_work()
    try:
        run = asyncio.run(_whole(plan))
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted; everything is gone again", file=sys.stderr)
        return 130
    found = page.outcome(run)
    written = page.write(run, found, conditions.observe(busy), options.output)
    for one in found.judged:
        slope = f"{one.trend.slope:+.2f} an hour" if one.trend else "?"
        print(f"{one.verdict:9} {one.name}: {one.first:.4g} -> {one.last:.4g} {one.unit} ({slope})")
    for problem in found.problems:
        print(f"PROBLEM   {problem}")
    print(f"written: {written}")
    return 1 if found.problems else 0


async def _whole(plan: rounds.Plan) -> rounds.Run:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with live.cluster(_NAMESPACE) as cluster:
        try:
            run = await rounds.soak(cluster, plan)
        except* BenchError as group:
            raise first(group) from group
    _RECORD.parent.mkdir(parents=True, exist_ok=True)
    _RECORD.write_bytes(msgspec.json.encode(run.samples))
    return run
