"""Results on disk, and docs/benchmarks.md made of them: rerunning one part changes its own chapter alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from qvirt_bench import plot
from qvirt_bench.figures import Figure, Result, spread

_HEAD: Final = """\
# Benchmarks

Written by `make bench` (`bench/`); edit nothing here. Every figure stands next to a named baseline that was measured in the same
run, in turns with it; samples are given as median (lowest-highest, number). A machine with other work (more than a quarter
of its CPUs busy right before) makes times provisional, which its chapter says; memory, sizes and counts don't care.
Again: `make bench`, or `make bench PART=start` for one chapter.
"""


def store(result: Result, directory: Path) -> None:
    """Keep a part's result, with its plots, in place of its last one."""
    folder = directory / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    for number, drawn in enumerate(result.plots):
        plot.draw(drawn, folder / f"{result.part}-{number}.svg")
    text = msgspec.json.format(msgspec.json.encode(result), indent=1)
    (folder / f"{result.part}.json").write_bytes(text + b"\n")


def write(directory: Path, order: Iterable[str]) -> Path:
    """docs/benchmarks.md from all results that there are, in this order; a part's runs of another size come behind it."""
    folder = directory / "benchmarks"
    files = [
        file
        for name in order
        for file in (folder / f"{name}.json", *sorted(folder.glob(f"{name}-[0-9]*.json")))
    ]
    results = [found for file in files if (found := _stored(file)) is not None]
    lines = [_HEAD, *_summary(results), *(line for one in results for line in _chapter(one))]
    page = directory / "benchmarks.md"
    page.write_text("\n".join(lines).rstrip() + "\n")
    return page


def _stored(file: Path) -> Result | None:
    """None: not measured yet, or by a bench that wrote it differently."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Result)
    except FileNotFoundError:
        return None
    except msgspec.ValidationError as error:
        print(f"{file}: left out, measure it again: {error}", file=sys.stderr)
        return None


def _summary(results: Sequence[Result]) -> Iterator[str]:
    yield "| figure | ours | baseline | held against the aim | aim | met |"
    yield "|---|---|---|---|---|---|"
    for result in results:
        mark = " *" if result.conditions.busy else ""
        for figure in result.figures:
            yield f"| [{figure.name}](#{result.part}){mark} | {' | '.join(_cells(figure))} |"
    yield ""
    yield "\\* measured while the machine had other work"
    yield ""
    usual = sum(result.seconds for result in results if not result.size)
    yield f"All parts together took {usual / 60:.0f} minutes (those of a size that was asked for left out)."
    yield ""


def _cells(figure: Figure) -> tuple[str, ...]:
    unit = f" {figure.unit}"
    sign = {"ratio": "{:.3g}x", "difference": "{:+.3g}" + unit, "value": "{:.4g}" + unit}
    form = sign[figure.kind]
    limit = ""
    if figure.aim is not None:
        limit = ("<= " if figure.better == "less" else ">= ") + form.format(figure.aim)
    met = {True: "yes", False: "**no**", None: ""}[figure.met]
    return (
        spread(figure.ours) + unit,
        f"{spread(figure.baseline)}{unit}: {figure.baseline_name}",
        form.format(figure.verdict),
        limit,
        met,
    )


def _chapter(result: Result) -> Iterator[str]:
    seen = result.conditions
    yield f'<a id="{result.part}"></a>'
    yield f"## {result.title}"
    yield ""
    busy = ", **with other work: times are provisional**" if seen.busy else ""
    yield (
        f"{result.date}, {seen.cpus} CPUs, {seen.memory_gib:.0f} GiB, Linux {seen.kernel}, "
        f"{seen.qemu or 'QEMU'} with {seen.accelerator}; {seen.at_work:.1f} of its CPUs busy before{busy}; "
        f"measured in {result.seconds / 60:.1f} minutes."
    )
    yield ""
    for note in result.notes:
        yield f"- {note}"
    if result.table:
        yield ""
        yield f"| {' | '.join(result.table[0])} |"
        yield f"|{'---|' * len(result.table[0])}"
        for row in result.table[1:]:
            yield f"| {' | '.join(row)} |"
    for number, drawn in enumerate(result.plots):
        yield ""
        yield f"![{drawn.title}](benchmarks/{result.part}-{number}.svg)"
        yield ""
        for curve in drawn.curves:
            yield f"- {curve.name}: slope {curve.slope:.4g} ({drawn.y} for each of {drawn.x})"
    yield ""
