"""The command `python -m qvirt_bench [NAME...]`."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import importlib
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import msgspec

from qvirt_bench import conditions, report
from qvirt_bench.errors import BenchError
from qvirt_bench.figures import Figure, Measured, Result, spread
from qvirt_bench.image_root import ROOT

#: Part -> its title; the module `parts.NAME` has its `measure`. In the order of the report.
PARTS: Final[Mapping[str, str]] = {
    "launcher-memory": "The launcher's own memory",
    "overhead": "What a pod asks for and uses beyond its guest's RAM",
    "start": "From exec to a running machine",
    "boot": "From a running machine to a login prompt",
    "image": "Images",
    "network": "Streams and round trips between a guest and another pod",
    "disk": "A guest's disk",
    "density": "Many guests on one node",
    "cluster": "From creation to Running in a cluster, and what it writes to the API",
    "streams": "Consoles and forwarded ports through virt-api",
    "control-plane": "The control plane",
    "scale-controller": "virt-controller and thousands of instances",
    "growth": "virt-controller, more changes and more nodes",
    "scale-handler": "virt-handler and the guests of a full node",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is named, or everything; exit status 0 when all of it was measured, 1 if not, whether aims are met or not."""
    parser = argparse.ArgumentParser(
        prog="python -m qvirt_bench",
        description="Measure, each figure against a baseline in the same run; write docs/benchmarks.md.",
        epilog="parts: " + ", ".join(PARTS),
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure (default: all)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", metavar="DIR")
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"no part {name!r}; there are {', '.join(PARTS)}")
    failed = [name for name in options.parts or PARTS if not _run(name, options.output)]
    print(f"written: {report.write(options.output, PARTS)}")
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, output: Path) -> bool:
    print(f"== {name}: {PARTS[name]}", flush=True)
    module = importlib.import_module(f"qvirt_bench.parts.{name.replace('-', '_')}")
    measure = cast("Callable[[], Awaitable[Measured]]", module.measure)
    busy = conditions.at_work()
    begun = time.monotonic()
    try:
        measured = asyncio.run(_whole(measure))
    except BenchError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return False
    except Exception:  # noqa: BLE001  the other parts can still be measured
        traceback.print_exc()
        return False
    result = Result(
        part=f"{name}-{measured.size}" if measured.size else name,
        title=f"{PARTS[name]}: {measured.size}" if measured.size else PARTS[name],
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        seconds=round(time.monotonic() - begun, 1),
        conditions=conditions.observe(busy),
        **msgspec.structs.asdict(measured),
    )
    report.store(result, output)
    for figure in result.figures:
        print(f"   {_line(figure)}", flush=True)
    print(f"   in {result.seconds / 60:.1f} minutes", flush=True)
    return True


async def _whole(measure: Callable[[], Awaitable[Measured]]) -> Measured:
    return await measure()


def _line(figure: Figure) -> str:
    met = {True: "met", False: "NOT MET", None: "no aim"}[figure.met]
    return (
        f"{figure.name}: {spread(figure.ours)} {figure.unit}; {figure.baseline_name}: "
        f"{spread(figure.baseline)} {figure.unit}; {figure.kind} {figure.verdict:.4g} ({met})"
    )
