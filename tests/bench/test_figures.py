"""What is computed from samples, and the page that is written of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from qvirt_bench import cli, report, smaps
from qvirt_bench.figures import Conditions, Curve, Figure, Kind, Plot, Result, spread

SEEN = Conditions(
    cpus=2,
    memory_gib=8,
    at_work=0.1,
    accelerator="tcg",
    kernel="6.1",
    qemu="QEMU 7.2",
)


def figure(kind: Kind, aim: float | None = None, **more: object) -> Figure:
    made = Figure(
        name="time",
        unit="ms",
        ours=(30.0, 20.0, 10.0),
        baseline=(10.0, 10.0),
        baseline_name="by hand",
        kind=kind,
        aim=aim,
    )
    return msgspec.structs.replace(made, **more)


def result(part: str, *figures: Figure, **more: object) -> Result:
    made = Result(
        part=part,
        title=part.title(),
        date="2026-01-02",
        seconds=90,
        conditions=SEEN,
        figures=figures,
    )
    return msgspec.structs.replace(made, **more)


@pytest.mark.parametrize(("kind", "value"), [("ratio", 2.0), ("difference", 10.0), ("value", 20.0)])
def test_medians_are_held_against_the_aim(kind: Kind, value: float) -> None:
    assert figure(kind).verdict == value
    assert figure(kind).met is None
    assert figure(kind, aim=value).met is True
    assert figure(kind, aim=value - 0.1).met is False
    assert figure(kind, aim=value + 0.1, better="more").met is False
    assert figure(kind, aim=value - 0.1, better="more").met is True


def test_spread_tells_how_many_and_how_far() -> None:
    assert spread((3.0, 1.0, 2.0)) == "2 (1-3, n=3)"
    assert spread((1.5,)) == "1.5"


def test_slope_of_a_line() -> None:
    assert Curve(name="a", points=((1, 5), (2, 8), (3, 11))).slope == pytest.approx(3)
    assert Curve(name="a", points=((1, 5),)).slope == 0


def test_a_part_that_runs_again_changes_its_own_chapter_alone(tmp_path: Path) -> None:
    report.store(result("start", figure("ratio", aim=1.5)), tmp_path)
    report.store(result("boot", figure("value", aim=30.0)), tmp_path)
    before = report.write(tmp_path, ["start", "boot"]).read_text()
    assert before.index("## Start") < before.index("## Boot")
    assert "| 2x | <= 1.5x | **no** |" in before
    assert "| 20 ms | <= 30 ms | yes |" in before
    report.store(result("boot", figure("value", aim=10.0)), tmp_path)
    after = report.write(tmp_path, ["start", "boot"]).read_text()
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert changed == [
        "| [time](#boot) | 20 (10-30, n=3) ms | 10 (10-10, n=2) ms: by hand | 20 ms | <= 10 ms | **no** |"
    ]


def test_a_run_of_another_size_has_a_chapter_of_its_own(tmp_path: Path) -> None:
    report.store(result("start", figure("ratio")), tmp_path)
    report.store(result("start-500", figure("ratio"), size=500, seconds=6000), tmp_path)
    page = report.write(tmp_path, ["start"]).read_text()
    assert page.index("## Start\n") < page.index("## Start-500\n")
    assert "All parts together took 2 minutes" in page


def test_a_busy_machine_is_told(tmp_path: Path) -> None:
    busy = msgspec.structs.replace(SEEN, at_work=0.7)
    report.store(result("start", figure("ratio"), conditions=busy), tmp_path)
    page = report.write(tmp_path, ["start"]).read_text()
    assert "[time](#start) *" in page
    assert "provisional" in page.split("## Start")[1]


def test_plots_are_equal_for_equal_numbers(tmp_path: Path) -> None:
    curve = Curve(name="ours", points=((1, 2.0), (2, 3.0)))
    drawn = Plot(title="growth", x="guests", y="MiB", curves=(curve,))
    for place in ("a", "b"):
        report.store(result("start", figure("ratio"), plots=(drawn,)), tmp_path / place)
    files = [tmp_path / place / "benchmarks/start-0.svg" for place in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert b"guests" in files[0].read_bytes()
    page = report.write(tmp_path / "a", ["start"]).read_text()
    assert "ours: slope 1 (MiB for each of guests)" in page


def test_every_part_has_its_module() -> None:
    folder = Path(str(cli.__file__)).parent / "parts"
    modules = {file.stem.replace("_", "-") for file in folder.glob("[a-z]*.py")}
    assert modules == set(cli.PARTS)


def test_memory_of_a_process_is_the_kernels_sum() -> None:
    import os

    seen = smaps.of_process(os.getpid())
    assert 0 < seen.anon <= seen.pss <= seen.rss
    assert os.getpid() in smaps.descendants(os.getppid())
    assert sum(pss for _, pss in smaps.mappings(os.getpid())) == pytest.approx(seen.pss, rel=0.2)
    assert smaps.of_processes([os.getpid(), 2**22 + 1]).pss > 0
