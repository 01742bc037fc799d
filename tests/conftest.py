"""Rules that every test keeps: no leftover tasks, goldens rewritten only on request, root said where root is needed."""

from __future__ import annotations

import asyncio
import difflib
import inspect
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from qvirt_images import holder

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden"


# No test times anything: a busy machine is no failure. In CI the same examples every time, elsewhere new ones.
settings.register_profile(
    "qvirt",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
    print_blob=True,
)
settings.load_profile("qvirt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden/ instead of comparing"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_leftover_tasks")


@pytest.fixture
async def no_leftover_tasks() -> AsyncIterator[None]:
    """Every asynchronous test: a task that outlives its test fails it."""
    before = asyncio.all_tasks()
    yield
    for _ in range(3):  # let callbacks that were already scheduled run
        await asyncio.sleep(0)
    leftover = asyncio.all_tasks() - before - {asyncio.current_task()}
    for task in leftover:
        task.cancel()
    assert not leftover, f"tasks outlive the test: {[task.get_name() for task in leftover]}"


class Golden:
    """Compares a text with a file under tests/golden/, or rewrites the file under ``--update-golden``."""

    def __init__(self, update: bool) -> None:
        self._update = update

    def check(self, name: str, text: str) -> None:
        """:raise AssertionError: the texts differ; the message is their diff and how to accept it."""
        path = GOLDEN / name
        if self._update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        expected = path.read_text() if path.exists() else ""
        if text != expected:
            diff = "\n".join(
                difflib.unified_diff(
                    expected.splitlines(), text.splitlines(), f"golden/{name}", "now", lineterm=""
                )
            )
            raise AssertionError(
                f"{diff}\nIf this is meant: pytest --update-golden, then read the diff"
            )


@pytest.fixture(scope="session")
def holder_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of a pod's sidecars, as the launcher's image has it."""
    if shutil.which(holder.COMPILER) is None:
        pytest.skip(f"needs {holder.COMPILER}")
    program = tmp_path_factory.mktemp("holder") / "holder"
    holder.compile_holder(program)
    return program


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`Golden`, told by the command line whether to compare or to rewrite."""
    return Golden(bool(request.config.getoption("--update-golden")))
