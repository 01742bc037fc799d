"""Whose CPU time the start of pods takes on a node that is the whole cluster: Kubernetes' programs', our components', the pods' own.

Source: proc(5), stat; the kernel's documentation of both versions of control groups, where a group's time includes that of
groups below it that are gone.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from qvirt_bench import smaps
from qvirt_kube.client import Object

#: Milliseconds of CPU time, by who has spent them.
Shares = Counter[str]

_PROGRAMS: Final = {
    "kube-apiserver": "API server and etcd",
    "etcd": "API server and etcd",
    "kubelet": "kubelet",
    "containerd": "containerd",
    "kube-scheduler": "scheduler, kube-proxy and the like",
    "kube-controller": "scheduler, kube-proxy and the like",
    "kube-proxy": "scheduler, kube-proxy and the like",
}
PODS: Final = "the pods themselves"
REST: Final = "what starts containers (shims, runc, CNI) and the kernel"
#: Of /proc/stat: user, nice, system, irq and softirq.
_BUSY: Final = (0, 1, 2, 5, 6)


def spent(parts: Iterable[Object]) -> Shares:
    """Up to now.

    :param parts: our components' pods; all others are `PODS`.
    """
    found = _of_programs()
    kubepods = smaps.kubepods("cpuacct", "cpu,cpuacct")
    assert kubepods is not None, "this machine is the cluster's node"
    found[PODS] = _usage(kubepods)
    for part in parts:
        group = _group(kubepods, part["metadata"]["uid"])
        if group is not None:
            used = _usage(group)
            found[part["metadata"]["labels"]["kubevirt.io"]] += used
            found[PODS] -= used
    own = round(sum(os.times()[:4]) * 1000)
    with open("/proc/stat", encoding="ascii") as file:
        ticks = file.readline().split()[1:]
    found[REST] = sum(int(ticks[n]) for n in _BUSY) * 1000 // smaps.TICK - found.total() - own
    return found


def told(guests: Shares, pods: Shares, count: int) -> str:
    """A sentence: of each guest, and of each pause pod."""
    rows = [
        f"{who} {used / count:.0f} ({pods[who] / count:.0f})" for who, used in guests.most_common()
    ]
    total = f"{guests.total() / count:.0f} ({pods.total() / count:.0f})"
    return (
        f"CPU time for each guest (for each pause pod) in ms, of {total} in all: {', '.join(rows)}."
    )


def _of_programs() -> Shares:
    found = Shares()
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal():
                comm = Path(f"/proc/{name}/comm").read_text(encoding="utf-8").strip()
                if comm in _PROGRAMS:
                    found[_PROGRAMS[comm]] += smaps.cpu_milliseconds(int(name))
    return found


def _group(kubepods: Path, uid: str) -> Path | None:
    names = (f"pod{uid}", uid.replace("-", "_"))
    for folder, below, _ in os.walk(kubepods):
        for name in below:
            if any(wanted in name for wanted in names):
                return Path(folder) / name
    return None


def _usage(group: Path) -> int:
    first = group / "cpuacct.usage"
    if first.exists():
        return int(first.read_text(encoding="ascii")) // 1_000_000
    stat = (group / "cpu.stat").read_text(encoding="ascii").split()
    return int(stat[stat.index("usage_usec") + 1]) // 1000
