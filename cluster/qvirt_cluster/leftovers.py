"""What a cluster has in the kernel and outside of its state directory: found, and removed piece by piece.

Nothing here trusts records of what was started: it looks at the kernel, so that it works whatever
was killed in between.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from qvirt_cluster.commands import run
from qvirt_cluster.errors import CommandFailed
from qvirt_cluster.layout import BRIDGE, KUBELET_ROOT, WIRED_LINKS, Layout

_CGROUPS: Final = Path("/sys/fs/cgroup")
_CNI_RESULTS: Final = Path("/var/lib/cni/results")
_SHIM_SOCKETS: Final = Path("/run/containerd/s")


def mounts(below: Path) -> tuple[Path, ...]:
    """Mount points at or below a directory, the innermost first."""
    prefix = f"{below}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [_unescape(line.split()[4]) for line in lines]
    return tuple(Path(p) for p in reversed(points) if p == str(below) or p.startswith(prefix))


def _unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def unmount_all(below: Path) -> tuple[Path, ...]:
    """Unmount everything at or below a directory; gives what is still mounted."""
    for point in mounts(below):
        try:
            run("umount", point, deadline=20)
        except CommandFailed:
            with suppress(CommandFailed):  # seen by the caller
                run("umount", "--lazy", point, deadline=20)
    return mounts(below)


def has_kubelet_root(layout: Layout) -> bool:
    """Whether kubelet's root is this cluster's folder."""
    try:
        return KUBELET_ROOT.samefile(layout.kubelet)
    except FileNotFoundError:
        return False


def remove_kubelet_root(layout: Layout) -> tuple[Path, ...]:
    """Unmount it with all the volumes below, if it is this cluster's; gives what is still mounted."""
    left: tuple[Path, ...] = ()
    if has_kubelet_root(layout):
        detach_loops(KUBELET_ROOT)
        left = unmount_all(KUBELET_ROOT)
    with suppress(OSError):  # it was never there, or is somebody else's
        KUBELET_ROOT.rmdir()
    return left


def detach_loops(below: Path) -> None:
    """Detach loop devices over files below a directory: kubelet makes them for block volumes."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError, CommandFailed):  # detached meanwhile; or busy, then unmounting tells
            if backing.read_text().startswith(f"{below}/"):
                run("losetup", "--detach", f"/dev/{backing.parts[3]}")


def container_ids(layout: Layout) -> frozenset[str]:
    """Containers that containerd has a bundle of."""
    return frozenset(bundle.name for bundle in layout.tasks.glob("*/*"))


def container_processes(ids: frozenset[str]) -> frozenset[int]:
    """Processes in the control groups of containers, and in groups that containers have made below."""
    found: set[int] = set()
    for group in _groups_of(ids):
        for path in group.rglob("cgroup.procs"):
            with suppress(OSError):  # the group was removed meanwhile, or is threaded
                found.update(int(word) for word in path.read_text().split())
    return frozenset(found - {0})


def _groups_of(ids: frozenset[str]) -> Iterable[Path]:
    if not ids:
        return
    for folder, names, _files in os.walk(_CGROUPS):
        for name in ids.intersection(names):
            yield Path(folder) / name


def pod_cgroups(name: str = "kubepods") -> tuple[Path, ...]:
    """kubelet's control groups, one in each hierarchy."""
    return tuple(path for path in (_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")) if path.exists())


def remove_cgroups(name: str = "kubepods") -> bool:
    """Remove kubelet's control groups, from the leaves up; False if some are still busy."""
    for root in pod_cgroups(name):
        for folder, _names, _files in os.walk(root, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)
    return not pod_cgroups(name)


def links() -> tuple[str, ...]:
    """The bridge of the pods' network and the interfaces on it, the bridge last."""
    known = json.loads(run("ip", "-json", "link", "show"))
    if not any(link["ifname"] == BRIDGE for link in known):
        return ()
    ports = tuple(link["ifname"] for link in known if link.get("master") == BRIDGE)
    return (*ports, BRIDGE)


def remove_links() -> None:
    """Remove them; a port that went with its pod meanwhile is fine."""
    for link in links():
        with suppress(CommandFailed):  # seen by the caller, who looks again
            run("ip", "link", "delete", "dev", link)


def shim_sockets(layout: Layout) -> tuple[Path, ...]:
    """Sockets of the shims, which containerd keeps in a wired-in place; each bundle names its own."""
    found = []
    for address in layout.tasks.glob("*/*/address"):
        with suppress(OSError):
            found.append(Path(address.read_text().removeprefix("unix://")))
    return tuple(path for path in found if path.parent == _SHIM_SOCKETS)


def cni_results(layout: Layout) -> tuple[Path, ...]:
    """What libcni noted about our pods: each file names the pod's network namespace, which is ours."""
    ours = f'"{layout.containerd}/run/'.encode()
    return tuple(path for path in _CNI_RESULTS.glob("*") if ours in path.read_bytes())


def remove_outside_files(layout: Layout) -> None:
    """Remove what is outside of the state directory: links that lead to it, sockets, CNI's results."""
    for path in shim_sockets(layout):
        path.unlink(missing_ok=True)
    for path in cni_results(layout):
        path.unlink(missing_ok=True)
    for folder in (_SHIM_SOCKETS, _SHIM_SOCKETS.parent, _CNI_RESULTS, _CNI_RESULTS.parent):
        with suppress(OSError):  # somebody else's too
            folder.rmdir()
    for place, target in WIRED_LINKS.items():
        if place.is_symlink() and place.readlink() == layout.state / target:
            place.unlink()
