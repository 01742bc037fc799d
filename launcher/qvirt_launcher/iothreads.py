"""Which thread serves which virtio disk: ``ioThreadsPolicy`` and ``dedicatedIOThread``.

A spec that says nothing gets one thread for all of them, where KubeVirt leaves them to QEMU's main loop: there a request
waits for whatever else QEMU does. (Emulated, no difference in CPU time was measured.) A microvm has none.

Threads are numbered from 1: first those that several disks share, then one for each disk with a thread of its own.
QEMU before 9.0 serves one disk by one thread, so ``supplementalPool`` gives each disk one thread of the pool in turn.
"""

from __future__ import annotations

from typing import assert_never

from qvirt_crds.devices import Disk
from qvirt_crds.domain import Domain
from qvirt_launcher.arguments import Properties, refused
from qvirt_launcher.board import family
from qvirt_launcher.cpu import vcpus


def assign_threads(domain: Domain) -> dict[str, str]:
    """Disk name -> id of its I/O thread."""
    disks = [d for d in domain.devices.disks if d.disk is not None and d.disk.bus == "virtio"]
    dedicated = [disk for disk in disks if disk.dedicated_io_thread]
    shared = [disk for disk in disks if not disk.dedicated_io_thread]
    if domain.io_threads_policy is None and not dedicated and family(domain) == "microvm":
        return {}
    size = _shared_threads(domain, shared, len(dedicated))
    threads = {disk.name: f"iothread{1 + i % size}" for i, disk in enumerate(shared)}
    return threads | {d.name: f"iothread{1 + size + i}" for i, d in enumerate(dedicated)}


def _shared_threads(domain: Domain, shared: list[Disk], dedicated: int) -> int:
    """How many threads serve the disks that have none of their own."""
    if not shared:
        return 0
    match domain.io_threads_policy:
        case None | "shared":
            return 1
        case "auto":
            return max(1, min(len(shared), 2 * vcpus(domain) - dedicated))
        case "supplementalPool":
            pool = domain.io_threads.supplemental_pool_thread_count if domain.io_threads else None
            if not pool or pool < 0:
                raise refused(
                    "spec.domain.ioThreads.supplementalPoolThreadCount",
                    "must be set and positive for ioThreadsPolicy supplementalPool",
                )
            return pool
        case unreachable:
            assert_never(unreachable)


def thread_objects(threads: dict[str, str]) -> tuple[Properties, ...]:
    """``-object iothread`` for every thread that serves a disk."""
    used = sorted(set(threads.values()), key=lambda name: int(name.removeprefix("iothread")))
    return tuple({"qom-type": "iothread", "id": name} for name in used)
