"""Processes: found again by record or by mark, ended for sure, never somebody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qvirt_cluster import processes
from qvirt_cluster.layout import Layout
from qvirt_cluster.processes import Record

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    found = Layout(tmp_path)
    found.run.mkdir()
    found.logs.mkdir()
    yield found
    assert not processes.kill_all(lambda: processes.marked(found), 10)


def test_a_started_process_is_found_by_record_and_by_mark(layout: Layout) -> None:
    record = processes.start(layout, "sleeper", ("/bin/sleep", "600"))
    assert record.alive
    assert processes.recorded(layout, "sleeper") == record
    assert processes.wait_until(lambda: processes.marked(layout) == {record.pid}, 10)
    assert os.getsid(record.pid) == record.pid


def test_stopping_ends_even_one_that_ignores_sigterm(layout: Layout) -> None:
    record = processes.start(layout, "stubborn", (sys.executable, "-c", STUBBORN))
    assert processes.wait_until(lambda: "on" in layout.log("stubborn").read_text(), 30)
    processes.stop(record, 0.2)
    assert not record.alive
    assert processes.exit_status(record.pid) == -signal.SIGKILL


def test_a_record_of_another_process_with_the_same_number_is_dead() -> None:
    start = processes.start_time(os.getpid())
    assert start is not None
    mine = Record(os.getpid(), start, processes.boot_id(), "")
    assert mine.alive
    assert not replace(mine, start=start + 1).alive
    assert not replace(mine, boot="another boot").alive


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.start_time(child.pid) is None
    child.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_damaged_record_is_none(layout: Layout, text: str) -> None:
    (layout.run / "etcd.json").write_text(text)
    assert processes.recorded(layout, "etcd") is None


def test_the_digest_follows_files_that_the_command_names(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("a")
    argv = ("program", f"--config={file}", str(file))
    before = processes.digest(argv)
    assert processes.digest(argv) == before
    file.write_text("b")
    assert processes.digest(argv) != before
    assert processes.digest((*argv, "--more")) != processes.digest(argv)
