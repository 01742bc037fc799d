"""What is seen of a node at one moment."""

from __future__ import annotations

from typing import Literal

import msgspec

Part = Literal["virt-api", "virt-controller", "virt-handler"]
PARTS: tuple[Part, ...] = ("virt-api", "virt-controller", "virt-handler")


class PartSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One pod of ours. A life is a process, as standby or as leader: another one follows when it is killed or takes over."""

    part: Part
    pod: str
    life: str
    #: Bytes: what nobody shares and only the end of the process gives back; and with its share of shared pages.
    anon: int
    pss: int
    descriptors: int
    threads: int
    #: Of the pod, without the one that holds its namespaces.
    processes: int


class LauncherSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One launcher pod."""

    vmi: str
    pod: str
    #: Bytes of the launcher's processes, as in `PartSeen`.
    anon: int
    descriptors: int
    #: QEMU's, without the guest's RAM and without translated code.
    qemu_anon: int
    qemu_descriptors: int
    #: Bytes that the compute container's control group counts (working set, as kubelet has it) beyond the guest's RAM that is
    #: there; and what was asked for it.
    beyond: int
    asked: int


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """:param level: nothing was under way: only the residents run, and no stream is open."""

    #: Seconds since the beginning.
    at: float
    level: bool
    parts: tuple[PartSeen, ...]
    launchers: tuple[LauncherSeen, ...]
    #: Of the whole node: processes of pods, network namespaces, links, mounts, control groups, files of virt-handler.
    node: dict[str, int]
