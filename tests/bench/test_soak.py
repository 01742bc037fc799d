"""What is judged of a soak: slopes within lives, level moments alone, and what may fail when."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_bench.errors import BenchError
from qvirt_bench.figures import Conditions
from qvirt_bench.smaps import MIB
from qvirt_bench.soak import page, trend
from qvirt_bench.soak.judge import Judged, judge, overhead
from qvirt_bench.soak.rounds import RESIDENTS, Plan, Run
from qvirt_bench.soak.samples import LauncherSeen, PartSeen, Sample
from qvirt_bench.soak.tally import Tally

_NUMBERS = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
_NODE = {"processes in pods": 40, "network namespaces": 6}


def line(slope: float, count: int = 20, step: float = 60, begin: float = 0) -> trend.Points:
    """Of so many units an hour."""
    return [(begin + n * step, 10 + slope * n * step / 3600) for n in range(count)]


def noisy(slope: float, count: int = 40) -> trend.Points:
    """The same, not quite level, as rounds leave it."""
    dice = random.Random(1)
    return [(x, y + dice.uniform(-0.3, 0.3)) for x, y in line(slope, count)]


def sample(
    at: float,
    *,
    level: bool = True,
    life: str = "a",
    anon: float = 60.0,
    descriptors: int = 20,
    beyond: float = 100.0,
) -> Sample:
    return Sample(
        at=at,
        level=level,
        parts=(
            PartSeen(
                part="virt-handler",
                pod="virt-handler-x",
                life=life,
                anon=int(anon * MIB),
                pss=int(anon * MIB),
                descriptors=descriptors,
                threads=3,
                processes=1,
            ),
        ),
        launchers=tuple(
            LauncherSeen(
                vmi=name,
                pod=f"virt-launcher-{name}",
                anon=11 * MIB,
                descriptors=20,
                qemu_anon=25 * MIB,
                qemu_descriptors=40,
                beyond=int(beyond * MIB),
                asked=146 * MIB,
            )
            for name in RESIDENTS
        ),
        node=_NODE,
    )


def of(judged: list[Judged], name: str) -> Judged:
    return next(one for one in judged if one.name == name)


class TestTrend:
    @given(_NUMBERS, st.integers(6, 30))
    def test_of_a_line_is_its_slope(self, slope: float, count: int) -> None:
        found = trend.trend([line(slope, count)])
        assert found is not None
        assert found.slope == pytest.approx(slope, abs=1e-3, rel=1e-6)
        assert found.low <= found.slope <= found.high

    @given(st.lists(_NUMBERS, min_size=6, max_size=20), _NUMBERS)
    def test_another_height_is_the_same_trend(self, values: list[float], more: float) -> None:
        points = [(60.0 * n, value) for n, value in enumerate(values)]
        found, moved = (trend.trend([[(x, y + lift) for x, y in points]]) for lift in (0.0, more))
        assert found is not None
        assert moved is not None
        assert moved.slope == pytest.approx(found.slope, abs=1e-2, rel=1e-6)

    @given(st.lists(_NUMBERS, min_size=1, max_size=6))
    def test_what_differs_between_lives_is_no_slope(self, heights: list[float]) -> None:
        lives = [
            [(x, height) for x, _ in line(0, begin=number * 1e4)]
            for number, height in enumerate(heights)
        ]
        found = trend.trend(lives)
        assert found is not None
        assert (found.slope, found.low, found.high) == (0, 0, 0)
        assert found.lives == len(lives)

    def test_one_wild_value_changes_little(self) -> None:
        points = [*noisy(0)]
        points[20] = points[20][0], 1000.0
        found = trend.trend([points])
        assert found is not None
        assert abs(found.slope) < 0.5

    @pytest.mark.parametrize(
        ("points", "verdict"),
        [
            (noisy(0), "flat"),
            (noisy(-5), "flat"),
            (noisy(5), "grows"),
            (noisy(1.2), "unclear"),
            (line(5, 3), "too short"),
        ],
    )
    def test_verdict(self, points: trend.Points, verdict: trend.Verdict) -> None:
        assert trend.verdict(trend.trend([points]), 1.0) == verdict


class TestJudge:
    def test_a_leak_is_found_and_flat_series_are_flat(self) -> None:
        samples = [sample(n * 60, anon=60 + n * 0.2, descriptors=20 + n) for n in range(30)]
        judged = judge(samples, RESIDENTS, 0)
        growing = {one.name for one in judged if one.verdict == "grows"}
        assert growing == {"virt-handler: memory of its own", "virt-handler: descriptors"}
        assert of(judged, "virt-handler: descriptors").trend is not None
        assert {one.verdict for one in judged if one.name not in growing} == {"flat"}

    def test_only_level_moments_count(self) -> None:
        samples = [sample(n * 60) for n in range(30)]
        samples += [sample(n * 60 + 30, level=False, anon=60 + n) for n in range(30)]
        samples.sort(key=lambda one: one.at)
        assert {one.verdict for one in judge(samples, RESIDENTS, 0)} == {"flat"}

    def test_the_least_of_a_moment_counts(self) -> None:
        samples = []
        for n in range(20):
            samples += [sample(n * 60 + extra, descriptors=20 + extra) for extra in (2, 1, 0)]
        found = of(judge(samples, RESIDENTS, 0), "virt-handler: descriptors")
        assert (found.first, found.last) == (20, 20)
        assert found.trend is not None
        assert found.trend.points == 20

    def test_the_warm_up_of_each_life_does_not_count(self) -> None:
        samples = []
        for life in range(4):
            for n in range(12):
                at = life * 720 + n * 60
                samples.append(sample(at, life=str(life), anon=60 + min(n, 4)))
        found = of(judge(samples, RESIDENTS, 240), "virt-handler: memory of its own")
        assert found.verdict == "flat"
        assert found.trend is not None
        assert found.trend.lives == 4
        assert of(judge(samples, RESIDENTS, 0), found.name).verdict == "grows"

    def test_a_pod_that_takes_more_than_asked_for_is_found(self) -> None:
        samples = [sample(0), sample(15, level=False, beyond=147.0), sample(30)]
        found = overhead(samples)
        assert found is not None
        assert found.exceeded
        assert (found.at, found.beyond, found.asked, found.pods) == (15, 147, 146, 2)
        calm = overhead(samples[:1])
        assert calm is not None
        assert not calm.exceeded


async def _fails() -> None:
    raise BenchError("no answer")


async def test_failures_during_restarts_are_counted_apart() -> None:
    tally = Tally(settle=0.2)
    assert not await tally.attempt("console", _fails)
    with tally.disturbing("virt-api deleted"):
        assert not await tally.attempt("console", _fails)
    assert not await tally.attempt("console", _fails)
    await asyncio.sleep(0.3)
    assert not await tally.attempt("console", _fails)
    assert tally.expected["console"] == 2
    assert [one.error for one in tally.failures] == ["no answer"] * 2
    assert [one.what for one in tally.disturbances] == ["virt-api deleted"]


def test_the_page_says_what_came_of_it(tmp_path: Path) -> None:
    seen = Conditions(cpus=2, memory_gib=8, at_work=0, accelerator="tcg", kernel="6", qemu="7")

    def run(samples: list[Sample], replaced: tuple[str, ...] = ()) -> Run:
        return Run(
            plan=Plan(seconds=1800, guests=4),
            samples=tuple(samples),
            tally=Tally(),
            rounds=30,
            guests=120,
            replaced=replaced,
        )

    well = run([sample(n * 60) for n in range(30)])
    found = page.outcome(well)
    assert not found.problems
    text = page.write(well, found, seen, tmp_path).read_text()
    assert "Never exceeded" in text
    assert "**Nothing grows, nothing failed.**\n" in text
    assert all((tmp_path / "soak" / f"{number}.svg").exists() for number in range(5))

    ill = run([sample(n * 60, anon=60 + n, beyond=150) for n in range(30)], ("resident-bridge",))
    found = page.outcome(ill)
    assert len(found.problems) == 3
    text = page.write(ill, found, seen, tmp_path).read_text()
    assert "virt-handler: memory of its own grows" in text
    assert "**Exceeded.**" in text
