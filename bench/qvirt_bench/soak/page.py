"""docs/soak.md, written of a run."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from qvirt_bench import plot
from qvirt_bench.figures import Conditions
from qvirt_bench.soak import judge
from qvirt_bench.soak.curves import plots
from qvirt_bench.soak.rounds import RESIDENTS, Run
from qvirt_bench.soak.visits import VISITS

_HEAD: Final = f"""\
# Soak

Written by `make soak` (`bench/qvirt_bench/soak`); edit nothing here but through it.

    make soak                  # an hour, on the cluster of KUBECONFIG or of this machine, else on one that is brought up for it
    make soak DURATION=600     # seconds; GUESTS=n for other than two guests a CPU in each round

It needs root on the cluster's node: processes are looked at there. Ctrl-C takes everything away again. Exit status 0: nothing grew,
nothing failed, no pod took more than was asked for it; 1: something did, or it could not be measured.

What happens: {len(RESIDENTS)} guests stay for all of it (one with each binding). In rounds others are created (as VirtualMachine and as
instance, with both bindings), boot, are used, and are deleted (with and without grace). Every guest gets, in any order: {", ".join(VISITS)}.
Every few minutes one of virt-handler (killed), virt-api (a pod deleted) and virt-controller (its leader deleted) is restarted.
What fails while one is down, or 30 s later, is expected and counted apart; any other failure is one of the run.

What is judged: after each round, with the round's guests gone and all connections closed, what every component holds. The slope is Theil-Sen's
over pairs of moments in the same life of a process (a restarted process is another one, and so is a virt-controller that begins to lead), with its bounds at 90 %; the first minutes
of a life don't count. A series **grows** when even its lower bound is above the limit: {judge.MEMORY_LIMIT:.0f} MiB or {judge.MEMORY_SHARE * 100:.0f} % an hour for memory,
whichever is more, {judge.COUNT_LIMIT:.0f} an hour for counts. "unclear": the slope is above and noise may be why; run longer.
"""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run; each problem is a sentence."""

    judged: tuple[judge.Judged, ...]
    overhead: judge.Overhead | None
    problems: tuple[str, ...]


def outcome(run: Run) -> Outcome:
    """Judge it."""
    judged = judge.judge(run.samples, RESIDENTS, run.plan.warm_up)
    taken = judge.overhead(run.samples)
    problems = [f"{one.name} grows" for one in judged if one.verdict == "grows"]
    if taken is not None and taken.exceeded:
        problems.append(
            f"the pod of {taken.vmi} took {taken.beyond} MiB beyond its guest's RAM; {taken.asked} were asked for"
        )
    problems += [f"resident {name} was not the same at the end" for name in run.replaced]
    problems += [f"{one.at:.0f} s: {one.what}: {one.error}" for one in run.tally.failures]
    return Outcome(judged=tuple(judged), overhead=taken, problems=tuple(problems))


def write(run: Run, found: Outcome, seen: Conditions, directory: Path) -> Path:
    """The page and its plots."""
    folder = directory / "soak"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = plots(run.samples, tuple(RESIDENTS), run.tally.disturbances)
    for number, one in enumerate(drawn):
        plot.draw(one, folder / f"{number}.svg")
    lines = [
        _HEAD,
        *_summary(run, found, seen),
        *_series(found.judged),
        *_overhead(found.overhead),
        *_activity(run),
        "## Plots",
        "",
        "Dotted lines are restarts.",
        "",
        *(f"![{one.title}](soak/{number}.svg)\n" for number, one in enumerate(drawn)),
    ]
    page = directory / "soak.md"
    page.write_text("\n".join(lines).rstrip() + "\n")
    return page


def _summary(run: Run, found: Outcome, seen: Conditions) -> Iterator[str]:
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    yield "## The last run"
    yield ""
    yield (
        f"{date}, {run.plan.seconds / 60:.0f} minutes, {seen.cpus} CPUs, {seen.memory_gib:.0f} GiB, Linux {seen.kernel}, "
        f"{seen.qemu} with {seen.accelerator}; {seen.at_work:.1f} of its CPUs busy before. "
        f"{run.rounds} rounds, {run.guests} guests besides the residents, {sum(run.tally.done.values())} visits, "
        f"{len(run.tally.disturbances)} restarts, {len(run.samples)} samples."
    )
    yield ""
    open_ones = sum(one.verdict in ("unclear", "too short") for one in found.judged)
    if not found.problems:
        yield "**Nothing grows, nothing failed.**" + (
            f" {open_ones} of {len(found.judged)} series can't be told from noise yet: run longer."
            if open_ones
            else ""
        )
    else:
        yield "**Not well:**"
        yield ""
        yield from (f"- {problem}" for problem in found.problems)
    yield ""


def _series(judged: Sequence[judge.Judged]) -> Iterator[str]:
    yield "## Slopes"
    yield ""
    yield "| series | first quarter | last quarter | slope an hour (bounds) | limit an hour | moments, lives | verdict |"
    yield "|---|---|---|---|---|---|---|"
    for one in judged:
        unit = f" {one.unit}" if one.unit else ""
        slope, size = "", ""
        if one.trend is not None:
            slope = f"{one.trend.slope:+.2f} ({one.trend.low:+.2f} to {one.trend.high:+.2f})"
            size = f"{one.trend.points}, {one.trend.lives}"
        shown = one.verdict if one.verdict == "flat" else f"**{one.verdict}**"
        yield f"| {one.name} | {one.first:.4g}{unit} | {one.last:.4g}{unit} | {slope} | {one.limit:.3g}{unit} | {size} | {shown} |"
    yield ""


def _overhead(found: judge.Overhead | None) -> Iterator[str]:
    if found is None:
        return
    yield "## Memory of pods beyond guest RAM"
    yield ""
    yield (
        f"Of {found.pods} launcher pods, in every sample: the working set of the compute container's control group, kernel memory included, without the "
        f"guest's RAM that is there. The highest was {found.beyond} MiB of {found.asked} asked for ({100 * found.beyond / found.asked:.0f} %, {found.vmi}, "
        f"{found.at / 60:.0f} minutes in); the median is {100 * found.median_share:.0f} %. "
        + ("**Exceeded.**" if found.exceeded else "Never exceeded.")
    )
    yield ""


def _activity(run: Run) -> Iterator[str]:
    tally = run.tally
    failed = [one.what for one in tally.failures]
    yield "## What was done"
    yield ""
    yield "| | done | failed during restarts | failed |"
    yield "|---|---|---|---|"
    for what in sorted({*tally.done, *tally.expected, *failed}):
        yield f"| {what} | {tally.done[what]} | {tally.expected[what]} | {failed.count(what)} |"
    yield ""
    yield "| minute | restart | until all was ready, s |"
    yield "|---|---|---|"
    for one in tally.disturbances:
        yield f"| {one.at / 60:.1f} | {one.what} | {one.seconds:.0f} |"
    yield ""
