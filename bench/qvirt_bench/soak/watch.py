"""Samples: pods by the API server, their processes and control groups by the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qvirt_bench import guests, smaps
from qvirt_bench.live import Live
from qvirt_bench.soak.samples import PARTS, LauncherSeen, PartSeen, Sample
from qvirt_kube.client import Object
from qvirt_kube.errors import KubeError

_POD: Final = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")
_MAPPING: Final = re.compile(r"^[0-9a-f]+-[0-9a-f]+ (\S{4}) ", re.M)
_SIZE: Final = re.compile(r"^Size: +(\d+) kB$", re.M)
_ANONYMOUS: Final = re.compile(r"^Anonymous: +(\d+) kB$", re.M)
_PSS: Final = re.compile(r"^Pss: +(\d+) kB$", re.M)
_STATE: Final = Path("/run/qvirt-handler")
_OVERHEAD: Final = "kubevirt.io/memory-overhead-bytes"
#: Pods' own first process, which holds their namespaces.
_PAUSE: Final = "pause"


async def look(live: Live, at: float, *, level: bool) -> Sample | None:
    """One sample; None while the API server does not answer."""
    try:
        parts, launchers = await live.parts(), await live.items("pods")
    except KubeError:
        return None
    return await asyncio.to_thread(_look, parts, launchers, at, level)


def processes_of_pods() -> dict[str, dict[int, str]]:
    """UID of the pod -> process number -> its name, of all pods of this node."""
    found: dict[str, dict[int, str]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                match = _POD.search(_text(f"/proc/{name}/cgroup"))
                if match:
                    comm = _text(f"/proc/{name}/comm").strip()
                    uid = match[1].replace("_", "-")
                    found.setdefault(uid, {})[int(name)] = comm
    return found


def _look(parts: list[Object], launchers: list[Object], at: float, level: bool) -> Sample:
    processes = processes_of_pods()
    return Sample(
        at=round(at, 1),
        level=level,
        parts=tuple(_parts(parts, processes)),
        launchers=tuple(_launchers(launchers, processes)),
        node=_node(processes),
    )


def _parts(pods: list[Object], processes: dict[str, dict[int, str]]) -> Iterator[PartSeen]:
    for pod in pods:
        part = next((p for p in PARTS if p == pod["metadata"]["labels"].get("kubevirt.io")), None)
        inside = _inside(pod, processes)
        if part is None or not inside:
            continue
        memory = smaps.of_processes(inside)
        name = pod["metadata"]["name"]
        yield PartSeen(
            part=part,
            pod=name,
            # Its number is the container's as well: a killed one has another. Who becomes the leader does more than before.
            life=f"{name}/{min(inside)}" + ("/leads" if leads(pod) else ""),
            anon=memory.anon,
            pss=memory.pss,
            descriptors=sum(_count(f"/proc/{pid}/fd") for pid in inside),
            threads=sum(_count(f"/proc/{pid}/task") for pid in inside),
            processes=len(inside),
        )


def leads(pod: Object) -> bool:
    """Whether it is the virt-controller that works; the others stand by, and are not ready."""
    part = pod["metadata"]["labels"].get("kubevirt.io")
    return part == "virt-controller" and any(
        c["type"] == "Ready" and c["status"] == "True"
        for c in pod["status"].get("conditions") or ()
    )


def _launchers(pods: list[Object], processes: dict[str, dict[int, str]]) -> Iterator[LauncherSeen]:
    for pod in pods:
        inside = _inside(pod, processes)
        qemu = next((pid for pid, name in inside.items() if name.startswith("qemu")), None)
        if qemu is None:
            continue
        with contextlib.suppress(OSError, KeyError, StopIteration):
            own = [pid for pid, name in inside.items() if name in ("virt-launcher", "python3")]
            ram, code, anon = _of_qemu(qemu)
            yield LauncherSeen(
                vmi=pod["metadata"]["labels"]["vmi.kubevirt.io/id"],
                pod=pod["metadata"]["name"],
                anon=smaps.of_processes(own).anon,
                descriptors=sum(_count(f"/proc/{pid}/fd") for pid in own),
                qemu_anon=max(0, anon - ram - code),
                qemu_descriptors=_count(f"/proc/{qemu}/fd"),
                beyond=smaps.working_set(qemu) - ram,
                asked=int(pod["metadata"]["annotations"][_OVERHEAD]),
            )


def _inside(pod: Object, processes: dict[str, dict[int, str]]) -> dict[int, str]:
    found = processes.get(pod["metadata"]["uid"], {})
    return {pid: name for pid, name in found.items() if name != _PAUSE}


def _of_qemu(pid: int) -> tuple[int, int, int]:
    """Resident bytes: the guest's RAM, translated code, and all anonymous memory (both of them are)."""
    text = _text(f"/proc/{pid}/smaps")
    ram = code = anon = 0
    starts = [match.start() for match in _MAPPING.finditer(text)] + [len(text)]
    for begin, end in itertools.pairwise(starts):
        entry = text[begin:end]
        size, anonymous = _number(_SIZE, entry), _number(_ANONYMOUS, entry)
        anon += anonymous
        if size == guests.MEMORY_MIB * smaps.MIB:
            ram += _number(_PSS, entry)
            # RAM in a file of memory is no anonymous memory: it is counted here as if it were.
            anon += _number(_PSS, entry) - anonymous
        elif "rwx" in entry[: entry.index("\n")]:
            code += anonymous
    if not ram:
        raise KeyError(f"process {pid} has no mapping of {guests.MEMORY_MIB} MiB")
    return ram, code, anon


def _node(processes: dict[str, dict[int, str]]) -> dict[str, int]:
    mounts = _text("/proc/self/mountinfo").splitlines()
    return {
        "processes in pods": sum(map(len, processes.values())),
        "network namespaces": sum(" - nsfs " in line for line in mounts),
        "mounts": len(mounts),
        "network links": _count("/sys/class/net"),
        "control groups of pods": sum(1 for _ in os.walk(smaps.kubepods("memory") or "")),
        "files of virt-handler": sum(len(files) for _, _, files in os.walk(_STATE)),
    }


def _count(folder: str) -> int:
    try:
        return len(os.listdir(folder))
    except OSError:
        return 0


def _number(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.search(text)
    return int(match[1]) * 1024 if match else 0


def _text(path: str | Path) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
