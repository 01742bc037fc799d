"""A process that goes on as somebody else: what it has left behind, how it is called, how it ends. In a process of its own each time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, socket, sys, time
from qvirt_launcher import forked, native
signal.signal(signal.SIGTERM, lambda *_: None)
kept = os.open("/dev/null", os.O_RDONLY)
def look():
    sock = socket.socket(fileno=0)
    said = sock.recv(100).decode()
    fds = sorted(map(int, os.listdir("/proc/self/fd")))[:-1]  # less the one that lists
    line = open("/proc/self/cmdline", "rb").read().strip(b"\\0").decode()
    name = open("/proc/self/comm").read().strip()
    leads = os.getsid(0) == os.getpid()
    plain = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    sock.sendall(repr([said, fds, line, name, leads, plain, native.death_signal()]).encode())
{task}
child = forked.fork(task, "other-name", [signal.SIGTERM])
{rest}
"""


def run(task: str, rest: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(task=task, rest=rest), "a-long-argument"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ},
        check=False,
    )


def test_it_keeps_nothing_but_its_socket_and_our_errors() -> None:
    done = run(
        "task = look",
        "child.sock.sendall(b'hello')\nprint(child.sock.recv(1000).decode())\n"
        "print(os.waitpid(child.pid, 0)[1])",
    )
    said, status = done.stdout.splitlines()
    assert said == "['hello', [0, 1, 2], 'other-name', 'other-name', True, True, 9]", done.stderr
    assert status == "0"


@pytest.mark.parametrize("end", ["1 / 0", "sys.exit(0)"])
def test_however_it_ends_it_never_comes_back(end: str) -> None:
    done = run(
        f"def task():\n    {end}",
        "print('parent', os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))",
    )
    assert done.stdout == "parent 1\n"
    assert "Traceback" in done.stderr


def test_it_dies_with_us() -> None:
    # It holds our end of standard error: `run` comes back when it is gone.
    assert run("def task():\n    time.sleep(600)", "os._exit(3)").returncode == 3
