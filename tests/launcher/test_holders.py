"""Sidecars that hold images open: the real command lines and the real program, in a root directory of their own."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qvirt_crds import pod_layout

pytestmark = [pytest.mark.root]
DEADLINE = 30


@pytest.fixture
def root(tmp_path: Path, holder_program: Path) -> Path:
    """An image's and, at the same time, the launcher's image's: holds the program that the init container copies."""
    (tmp_path / "dev").mkdir()
    os.mknod(tmp_path / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    source = tmp_path / pod_layout.HOLDER_SOURCE.removeprefix("/")
    source.parent.mkdir(parents=True)
    shutil.copy(holder_program, source)
    (tmp_path / pod_layout.HOLDER_DIR.removeprefix("/")).mkdir()
    return tmp_path


def inside(root: Path, command: list[str]) -> list[str]:
    return ["chroot", str(root), *command]


@pytest.fixture
def holder(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Started after its init container, which ran twice."""
    for _ in range(2):
        subprocess.run(inside(root, pod_layout.injector_command()), check=True, timeout=DEADLINE)
    process = subprocess.Popen(
        inside(root, pod_layout.holder_command("root")), start_new_session=True
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def launcher(root: Path) -> subprocess.Popen[bytes]:
    """Lives until it is killed; says so when it has shown its life."""
    script = (
        "import signal, sys; from qvirt_launcher.holders import show_life;"
        "show_life(sys.argv[1]); print(flush=True); signal.pause()"
    )
    pipe = f"{root}{pod_layout.HOLDER_PIPE}"
    process = subprocess.Popen([sys.executable, "-c", script, pipe], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    return process


def test_it_ends_when_the_launcher_is_killed(root: Path, holder: subprocess.Popen[bytes]) -> None:
    with launcher(root) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            holder.wait(0.5)
        process.kill()
    assert holder.wait(DEADLINE) == 0


def test_it_waits_for_the_launcher_to_start(root: Path, holder: subprocess.Popen[bytes]) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        holder.wait(0.5)
    with launcher(root) as process:
        process.kill()
    assert holder.wait(DEADLINE) == 0


@pytest.mark.parametrize("started", [True, False])
def test_a_signal_ends_it_well(root: Path, holder: subprocess.Popen[bytes], started: bool) -> None:
    if started:
        with launcher(root) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                holder.wait(0.5)
            holder.terminate()
            assert holder.wait(DEADLINE) == 0
            process.kill()
        return
    with pytest.raises(subprocess.TimeoutExpired):
        holder.wait(0.5)
    holder.terminate()
    assert holder.wait(DEADLINE) == 0


def test_without_the_pipe_it_ends_badly_at_once(
    root: Path, holder: subprocess.Popen[bytes]
) -> None:
    holder.terminate()
    holder.wait(DEADLINE)
    (root / pod_layout.HOLDER_PIPE.removeprefix("/")).unlink()
    command = inside(root, pod_layout.holder_command("root"))
    assert subprocess.run(command, check=False, timeout=DEADLINE).returncode == 1


def test_it_stays_for_the_next_launcher(root: Path, holder: subprocess.Popen[bytes]) -> None:
    holder.terminate()
    holder.wait(DEADLINE)
    command = inside(root, pod_layout.holder_command("root", stays=True))
    with subprocess.Popen(command) as stays:
        for _ in range(2):
            with launcher(root) as process:
                process.kill()
        with pytest.raises(subprocess.TimeoutExpired):
            stays.wait(0.5)
        stays.terminate()
        assert stays.wait(DEADLINE) == 0


def test_what_the_init_container_makes(root: Path, holder: subprocess.Popen[bytes]) -> None:
    program, pipe = (
        root / path.removeprefix("/")
        for path in (pod_layout.HOLDER_PROGRAM, pod_layout.HOLDER_PIPE)
    )
    assert program.read_bytes() == (root / pod_layout.HOLDER_SOURCE.removeprefix("/")).read_bytes()
    assert stat.S_IMODE(program.stat().st_mode) & 0o555 == 0o555
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_IMODE(pipe.stat().st_mode) == 0o600
    assert holder.poll() is None


def test_an_init_container_that_can_not_says_so(root: Path) -> None:
    (root / pod_layout.HOLDER_DIR.removeprefix("/")).rmdir()
    done = subprocess.run(inside(root, pod_layout.injector_command()), check=False)
    assert done.returncode == 1


@pytest.mark.parametrize(
    "words", [[], ["hold"], ["hold", "a"], ["log", "a"], ["inject", "a"], ["x", "a", "b"]]
)
def test_a_command_that_it_does_not_know(holder_program: Path, words: list[str]) -> None:
    assert subprocess.run([holder_program, *words], check=False, timeout=DEADLINE).returncode == 2


@pytest.mark.parametrize(
    ("words", "volume"),
    [
        (pod_layout.holder_command("a"), "a"),
        (pod_layout.holder_command("a", stays=True), "a"),
        (pod_layout.holder_command(pod_layout.KERNEL_BOOT), pod_layout.KERNEL_BOOT),
        (pod_layout.injector_command(), None),
        (pod_layout.console_log_command(), None),
        (["/bin/holder", *pod_layout.holder_command("a")[1:]], None),
        ([*pod_layout.holder_command("a")[:-1], "a"], None),
        ([*pod_layout.holder_command("a"), ""], None),
    ],
)
def test_holders_are_known_by_their_command(words: list[str], volume: str | None) -> None:
    assert pod_layout.held_volume(tuple(words)) == volume
