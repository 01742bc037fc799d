"""CPU time of QEMU's threads: those that run the guest, and those that serve its devices."""

from __future__ import annotations

import os

import msgspec

from qvirt_bench import smaps


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds since the process began. ``vcpus`` includes, under emulation, translating and running the guest's code."""

    vcpus: float
    devices: float

    @property
    def whole(self) -> float:
        """Of all threads: how work is shared between the two kinds differs with where a card is plugged in."""
        return self.vcpus + self.devices


def of(pid: int) -> Spent:
    """All threads of a QEMU that was started with ``debug-threads=on``.

    :raise OSError: it is gone.
    """
    vcpus = devices = 0.0
    for thread in os.listdir(f"/proc/{pid}/task"):
        name, fields = _stat(pid, thread)
        seconds = (int(fields[11]) + int(fields[12])) / smaps.TICK
        if _runs_guest(name):
            vcpus += seconds
        else:
            devices += seconds
    return Spent(vcpus=vcpus, devices=devices)


def part(pid: int) -> None:
    """Give the threads that run the guest one processor, and all others another, if there are two.

    :raise OSError: it is gone.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    for thread in os.listdir(f"/proc/{pid}/task"):
        name, _ = _stat(pid, thread)
        os.sched_setaffinity(int(thread), {first} if _runs_guest(name) else others or {first})


def _stat(pid: int, thread: str) -> tuple[str, list[str]]:
    """Its name, and its numbers from the third of proc(5) on."""
    with open(f"/proc/{pid}/task/{thread}/stat", encoding="utf-8", errors="replace") as file:
        name, _, rest = file.read().rpartition(")")
    return name.partition("(")[2], rest.split()


def _runs_guest(name: str) -> bool:
    return name.startswith("CPU ")
