"""Long-lived processes: started apart from us, found again by record, ended for sure.

A record holds the process's start time beside its number, so that a number used again is never
taken for ours. A process whose record was never written (we were killed in between) is found by
the mark in its environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from qvirt_cluster.commands import SEARCH_PATH
from qvirt_cluster.layout import MARK, Layout

_PROC: Final = Path("/proc")
_TICK: Final = 0.05
#: Children of this program. Kept, because subprocess collects one that nobody refers to, and its status is lost.
_started: Final[dict[int, subprocess.Popen[bytes]]] = {}
#: No proxies: the components talk among themselves.
_ENVIRONMENT: Final = {"PATH": SEARCH_PATH, "HOME": "/root", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Record:
    """One process as it was started.

    :param start: field 22 of /proc/PID/stat, clock ticks since boot.
    :param boot: /proc/sys/kernel/random/boot_id.
    :param digest: of the command line and the files that it names: another one means "restart it".
    """

    pid: int
    start: int
    boot: str
    digest: str

    @property
    def alive(self) -> bool:
        return self.boot == boot_id() and start_time(self.pid) == self.start


def boot_id() -> str:
    """This boot of the machine."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When the process was started, in ticks since boot; None if there is none, or only its zombie."""
    try:
        # The name in parentheses may hold anything, also spaces and parentheses.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def digest(argv: Iterable[str]) -> str:
    """What a process depends on: its command line, and every file that it names after a ``=``."""
    sum_ = hashlib.sha256()
    for word in argv:
        sum_.update(word.encode() + b"\0")
        path = Path(word.partition("=")[2] or word)
        if path.is_absolute() and path.is_file() and path.stat().st_size < 1 << 20:
            sum_.update(path.read_bytes())
    return sum_.hexdigest()


def recorded(layout: Layout, name: str) -> Record | None:
    """The record of a component, whether it lives or not; None if none (or an unreadable one) is there."""
    try:
        return Record(**json.loads((layout.run / f"{name}.json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def start(layout: Layout, name: str, argv: tuple[str, ...]) -> Record:
    """Start a process that outlives us, with its output in the component's log, and record it."""
    log = layout.log(name)
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    environment = {**_ENVIRONMENT, MARK: str(layout.state)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _started[process.pid] = process
    # It is our child: at worst a zombie now, so its number is still its own.
    stat = (_PROC / str(process.pid) / "stat").read_text().rpartition(")")[2].split()
    record = Record(process.pid, int(stat[19]), boot_id(), digest(argv))
    partial = layout.run / f".{name}.partial"
    partial.write_text(json.dumps(asdict(record)))
    partial.rename(layout.run / f"{name}.json")
    return record


def exit_status(pid: int) -> int | None:
    """How one that this program has started ended (negative: by that signal); None if not known, or it runs."""
    process = _started.get(pid)
    return process.poll() if process is not None else None


def stop(record: Record, grace: float) -> None:
    """End a recorded process: SIGTERM, after `grace` seconds SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not record.alive:
            return
        with suppress(ProcessLookupError):
            os.kill(record.pid, number)
        if wait_until(lambda: not record.alive, grace):
            exit_status(record.pid)  # a child of ours leaves no zombie


def marked(layout: Layout) -> frozenset[int]:
    """Processes of this cluster by their environment: components, shims and what they started."""
    wanted = f"{MARK}={layout.state}".encode()
    return frozenset(pid for pid in _pids() if wanted in _environment(pid).split(b"\0"))


def wait_until(done: Callable[[], bool], deadline: float) -> bool:
    """Look again and again; False if it is still not so after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(_TICK)
    return True


def command_line(pid: int) -> tuple[bytes, ...]:
    """Its words; empty if it ended meanwhile."""
    with suppress(OSError):
        return tuple((_PROC / str(pid) / "cmdline").read_bytes().split(b"\0"))
    return ()


def describe(pid: int) -> str:
    """A process in one line, for messages."""
    return f"process {pid} ({b' '.join(command_line(pid)[:4]).decode(errors='replace').strip()})"


def kill_all(find: Callable[[], frozenset[int]], deadline: float) -> frozenset[int]:
    """SIGKILL whatever `find` finds until it finds nothing; gives those that did not end in time."""
    end = time.monotonic() + deadline
    while left := frozenset(pid for pid in find() if start_time(pid) is not None):
        if time.monotonic() > end:
            return left
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_TICK)
    return frozenset()


def _pids() -> Iterable[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _environment(pid: int) -> bytes:
    try:
        return (_PROC / str(pid) / "environ").read_bytes()
    except OSError:  # ended meanwhile, or a kernel thread
        return b""
