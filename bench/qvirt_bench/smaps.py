"""What processes take of the machine's memory, as the kernel adds it up: PSS, where a page shared by n counts 1/n for each.

Source: proc(5), smaps_rollup; the kernel's documentation of both versions of control groups.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from qvirt_bench.errors import BenchError

MIB: Final = 2**20
_CGROUPS: Final = Path("/sys/fs/cgroup")
#: Clock ticks of a second of CPU time.
TICK: Final = os.sysconf("SC_CLK_TCK")
_FIELD: Final = re.compile(r"^(Pss|Pss_Anon|Pss_File|Pss_Shmem|Rss): +(\d+) kB$", re.M)


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes. ``anon`` is what nobody shares and nothing but the process's end gives back; ``file`` can be dropped and read again."""

    pss: int = 0
    anon: int = 0
    file: int = 0
    shmem: int = 0
    rss: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            pss=self.pss + other.pss,
            anon=self.anon + other.anon,
            file=self.file + other.file,
            shmem=self.shmem + other.shmem,
            rss=self.rss + other.rss,
        )


def of_process(pid: int) -> Memory:
    """One process.

    :raise OSError: it is gone, or may not be looked into.
    """
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        found = {name: int(value) * 1024 for name, value in _FIELD.findall(file.read())}
    return Memory(
        pss=found["Pss"],
        anon=found["Pss_Anon"],
        file=found["Pss_File"],
        shmem=found["Pss_Shmem"],
        rss=found["Rss"],
    )


def of_processes(pids: Iterable[int]) -> Memory:
    """The sum over processes; one that is gone counts nothing."""
    total = Memory()
    for pid in pids:
        try:
            total += of_process(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def working_set(pid: int) -> int:
    """Of a process's control group, what the kubelet compares with requests: usage, the kernel's part included, without
    pages of files that nobody has used of late.

    :raise OSError: it is gone.
    """
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
    groups = [line.split(":", 2) for line in lines]
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            folder = _CGROUPS / "memory" / path.lstrip("/")
            usage, inactive = "memory.usage_in_bytes", "total_inactive_file"
            break
    else:
        folder = _CGROUPS / next(path for _, names, path in groups if not names).lstrip("/")
        usage, inactive = "memory.current", "inactive_file"
    stat = (folder / "memory.stat").read_text(encoding="ascii")
    unused = next(line.split()[1] for line in stat.splitlines() if line.startswith(f"{inactive} "))
    return int((folder / usage).read_text(encoding="ascii")) - int(unused)


def mappings(pid: int) -> list[tuple[int, int]]:
    """Size and PSS of every mapping of a process, in bytes."""
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
        text = file.read()
    found = re.findall(r"^Size: +(\d+) kB\n(?:.*\n)*?Pss: +(\d+) kB", text, re.M)
    return [(int(size) * 1024, int(pss) * 1024) for size, pss in found]


def cpu_ticks(pid: int) -> int:
    """CPU time of a process and of its children that have ended, in clock ticks (proc(5): fields 14 to 17 of stat)."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:15]))


def cpu_milliseconds(pid: int) -> int:
    """The same in milliseconds."""
    return cpu_ticks(pid) * 1000 // TICK


def kubepods(*controllers: str) -> Path | None:
    """The control group of all pods; None: this is no node.

    :param controllers: names of the first version's hierarchies, of which the first that has it counts; the second version has one for all.
    """
    roots = (*(_CGROUPS / name for name in controllers), _CGROUPS)
    folders = (root / name for root in roots for name in ("kubepods", "kubepods.slice"))
    return next((folder for folder in folders if folder.is_dir()), None)


def descendants(root: int) -> dict[int, str]:
    """A process and all below it, with their names (``comm``)."""
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                found[pid] = file.read().strip()
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                    waiting += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def qemu_of(root: int) -> int:
    """The pid of the QEMU below a process.

    :raise BenchError: there is none.
    """
    for pid, name in descendants(root).items():
        if name.startswith("qemu-system"):
            return pid
    raise BenchError(f"no QEMU runs below process {root}")
