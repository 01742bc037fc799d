"""Files of another root while others move directories about: the kernel then gives up on paths with "..", and is asked again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qvirt_handler.rooted import open_in

_MOVES = """
import os, time
os.mkdir("one")
print("moving", flush=True)
while True:
    os.rename("one", "other")
    os.rename("other", "one")
    time.sleep(0.0002)
"""


@pytest.fixture
def unrest(tmp_path: Path) -> Iterator[None]:
    """Something is renamed all the time, in a directory that has nothing to do with it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", _MOVES], cwd=elsewhere, stdout=subprocess.PIPE
    ) as mover:
        assert mover.stdout is not None
        assert mover.stdout.readline() == b"moving\n"
        yield
        mover.kill()


@pytest.mark.usefixtures("unrest")
def test_moves_elsewhere_hide_no_file(tmp_path: Path) -> None:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/file").write_text("inside")
    root = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    try:
        # So long that something moves meanwhile again and again.
        path = "a/" + "b/../" * 40 + "../file"
        for _ in range(20_000):
            os.close(open_in(root, path, os.O_RDONLY))
    finally:
        os.close(root)
