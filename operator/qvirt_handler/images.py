"""Whether the images that a guest's files come from are there, seen from outside of its pod.

virt-handler comes before the kubelet's word that all of a pod runs: the launcher is started first, and a disk's image may
still be pulled.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from qvirt_crds import pod_layout
from qvirt_crds.meta import JsonObject
from qvirt_handler.finder import Process


def awaited(vmi: JsonObject, process: Process) -> tuple[str, ...]:
    """Volumes whose image is neither mounted in the launcher's container nor held by another one of its pod.

    :raises OSError: the launcher is gone.
    """
    missing = [(mark, where) for mark, where in _wanted(vmi) if not _mounted(process, where)]
    if not missing:
        return ()
    held = set(_held(process))
    return tuple(mark for mark, _ in missing if mark not in held)


def _wanted(vmi: JsonObject) -> Iterator[tuple[str, str]]:
    """Each image's mark, and where it is mounted in clusters that mount images."""
    spec = vmi.get("spec") or {}
    for volume in spec.get("volumes") or ():
        if volume.get("containerDisk"):
            yield volume["name"], pod_layout.image_dir(volume["name"])
    firmware = (spec.get("domain") or {}).get("firmware") or {}
    if (firmware.get("kernelBoot") or {}).get("container"):
        yield pod_layout.KERNEL_BOOT, pod_layout.KERNEL_BOOT_DIR


def _mounted(process: Process, path: str) -> bool:
    try:
        os.close(process.open_inside(path, os.O_PATH | os.O_DIRECTORY))
    except FileNotFoundError:
        return False
    return True


def _held(process: Process) -> Iterator[str]:
    """The images that processes of the pod hold; pods that have such processes share their process namespace."""
    proc = process.open_inside("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in filter(str.isdecimal, os.listdir(proc)):
            # Processes come and go while we look.
            with contextlib.suppress(OSError):
                handle = os.open(f"{name}/cmdline", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
                with open(handle, "rb") as file:
                    words = file.read().split(b"\0")[:-1]
                volume = pod_layout.held_volume(tuple(w.decode(errors="replace") for w in words))
                if volume is not None:
                    yield volume
    finally:
        os.close(proc)
