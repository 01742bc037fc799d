"""The command: cached, reproducible, and clear about what it lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qvirt_images.targets import TARGETS
from qvirt_images.tools import PACKAGE_OF

ROOT = Path(__file__).resolve().parents[2]


def _run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "images" / "build.py", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        check=False,
    )


def test_help_names_every_target() -> None:
    done = _run("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in TARGETS)


def test_usage_error() -> None:
    done = _run("toaster")
    assert done.returncode == 2
    assert "invalid choice: 'toaster'" in done.stderr


def test_missing_tools_are_named_together(tmp_path: Path) -> None:
    # The usual sbin directories are always searched, so only programs outside of them can vanish.
    done = _run("demo-guest", "--output", tmp_path / "out", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "mcopy" in done.stderr
    assert "qemu-img" in done.stderr
    assert "apt-get install" in done.stderr
    assert "mtools" in done.stderr
    assert not (tmp_path / "out").exists()


def test_packages_that_the_tools_come_from_are_listed() -> None:
    listed = (ROOT / "images/packages.txt").read_text().split()
    assert listed == sorted(listed)
    # These two are on every Debian machine.
    compiler = (ROOT / "images/compiler.txt").read_text().splitlines()[1:]
    assert set(PACKAGE_OF.values()) - {"apt", "dpkg"} == {*listed, *compiler}


def test_unwritable_output_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = _run("demo-guest", "--output", tmp_path / "file" / "out", "--cache", tmp_path / "cache")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "file/out" in done.stderr


def test_sources_without_the_kernel_are_named(tmp_path: Path) -> None:
    sources = tmp_path / "sources.list"
    sources.write_text("")
    done = _run(
        "demo-guest", "--output", tmp_path, "--cache", tmp_path / "cache", "--sources", sources
    )
    assert done.returncode == 1
    assert "no linux-image-686 for i386" in done.stderr
    assert "--sources" in done.stderr


def test_second_run_does_nothing(demo_guest: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in demo_guest.glob("demo-guest.*")}
    done = _run("demo-guest", "--output", demo_guest)
    assert done.returncode == 0
    assert done.stdout == f"demo-guest: up to date in {demo_guest}\n"
    assert before == {file: file.stat().st_mtime_ns for file in demo_guest.glob("demo-guest.*")}


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """An empty directory of user nobody's (root's tests), or of our own."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, 65534, 65534)
        yield Path(name)


def _is_open_to_all(path: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_builds_are_equal_and_need_no_root(open_directory: Path, demo_guest: Path) -> None:
    # The system's Python: the one that runs the tests may lie where no other user can read.
    # So may this clone; then root builds once more, which still shows that two builds are equal.
    as_nobody = os.geteuid() == 0 and _is_open_to_all(ROOT)
    python, user = ("/usr/bin/python3", 65534) if as_nobody else (sys.executable, None)
    done = subprocess.run(
        [
            *(python, ROOT / "images" / "build.py", "demo-guest"),
            *("--output", open_directory / "out", "--cache", open_directory / "cache"),
        ],
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=user,
        extra_groups=[] if user else None,
    )
    assert done.returncode == 0, done.stderr
    ours = json.loads((open_directory / "out" / "demo-guest.json").read_text())
    theirs = json.loads((demo_guest / "demo-guest.json").read_text())
    if ours["packages"] != theirs["packages"]:
        pytest.skip("the Debian archive has changed between the two builds")
    assert ours["outputs"] == theirs["outputs"]


def test_a_damaged_output_is_built_again(demo_guest: Path, tmp_path: Path) -> None:
    for file in demo_guest.glob("demo-guest.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert "up to date" in _run("demo-guest", "--output", tmp_path).stdout
    (tmp_path / "demo-guest.initrd").write_bytes(b"half")
    # An empty PATH ends the run at the first step of a build, which is all there is to see here.
    done = _run("demo-guest", "--output", tmp_path, PATH=str(tmp_path))
    assert "missing on this machine" in done.stderr
