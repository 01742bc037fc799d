"""The initramfs archive, read back by a real cpio."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from qvirt_images.tree import Tree, cpio


def _tree(order: int) -> Tree:
    tree = Tree()
    steps: list[Callable[[], None]] = [
        lambda: tree.file("bin/tool", b"#!/bin/sh\n", 0o755),
        lambda: tree.link("init", "bin/tool"),
        lambda: tree.character_device("dev/console", 5, 1),
        lambda: tree.file("etc/odd", b"x" * 5),
    ]
    for step in steps[::order]:
        step()
    return tree


def test_equal_trees_give_equal_archives() -> None:
    assert cpio(_tree(1)) == cpio(_tree(-1))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_it(tmp_path: Path) -> None:
    listing = subprocess.run(
        ["cpio", "-tv", "--numeric-uid-gid"], input=cpio(_tree(1)), capture_output=True, check=True
    ).stdout.decode()
    assert "crw-------   1 0        0          5,   1" in listing
    subprocess.run(
        ["cpio", "-id", "--no-absolute-filenames", "bin/tool", "init", "etc/odd"],
        input=cpio(_tree(1)),
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert (tmp_path / "bin/tool").read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE((tmp_path / "bin/tool").stat().st_mode) == 0o755
    assert os.readlink(tmp_path / "init") == "bin/tool"
    assert (tmp_path / "etc/odd").read_bytes() == b"xxxxx"
