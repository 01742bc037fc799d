"""What the tests of the room cluster/ share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOM = Path(__file__).resolve().parents[2] / "cluster"


@pytest.fixture
def room() -> Path:
    """The folder of cluster.py."""
    return ROOM
