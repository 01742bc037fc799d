"""The house: rooms are no packages, and the floors hold (docs/adr/0001)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("operator", "launcher", "qmp", "netsetup", "crds", "images", "cluster", "tests", "scripts")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_never_a_package(room: str) -> None:
    """``operator/__init__.py`` would shadow the standard library for every Python started in the root."""
    assert not (ROOT / room / "__init__.py").exists()


def test_no_test_directory_is_a_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_a_bare_python_starts_in_the_root() -> None:
    subprocess.run(
        [sys.executable, "-c", "import collections, operator; operator.add"],
        cwd=ROOT,
        check=True,
        timeout=30,
    )
