"""The ground that the processes stand on: the state directory, files in it, and places outside that lead to it."""

from __future__ import annotations

from pathlib import Path

from qvirt_cluster import leftovers
from qvirt_cluster.commands import run
from qvirt_cluster.components import Site
from qvirt_cluster.configuration import configuration_files
from qvirt_cluster.errors import UsageError
from qvirt_cluster.layout import KUBELET_ROOT, STATE_PATH_LIMIT, WIRED_LINKS, Layout
from qvirt_cluster.processes import boot_id


def check_state_directory(layout: Layout) -> None:
    """:raise UsageError: the directory can't be taken: too long a path, or it holds something else."""
    state = layout.state
    if len(str(state)) > STATE_PATH_LIMIT:
        raise UsageError(
            f"--state-dir {state} is longer than {STATE_PATH_LIMIT} characters, "
            f"and unix sockets below it could not be opened; take a shorter one"
        )
    if state.exists() and not layout.stamp.exists() and any(state.iterdir()):
        raise UsageError(
            f"--state-dir {state} holds something that is no cluster; name another directory"
        )


def prepare(site: Site) -> None:
    """Write the configuration, make the directories; again is fine.

    :raise UsageError: another Kubernetes has left files at a place that is wired in.
    """
    layout = site.layout
    for folder in (layout.logs, layout.run, layout.config, layout.kubelet):
        folder.mkdir(parents=True, exist_ok=True)
    for path, text in configuration_files(layout, site.host, site.binaries).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    _forget_other_boot(layout)
    for place, target in WIRED_LINKS.items():
        _lead(place, layout.state / target)
    _mount_kubelet_root(layout)


def make_state_directory(layout: Layout) -> None:
    """Readable by root only: keys and secrets of pods are in it. Stamped, so that `down` may delete it."""
    layout.state.mkdir(parents=True, exist_ok=True)
    # Traversable: containers of other users reach their volumes through it.
    layout.state.chmod(0o711)
    layout.stamp.touch()


def _forget_other_boot(layout: Layout) -> None:
    """containerd's record of running containers belongs to one boot; its own default place is in /run."""
    path = layout.run / "boot"
    now = boot_id()
    if path.exists() and path.read_text() != now:
        for folder in ("run", "runc"):
            stale = layout.containerd / folder
            if stale.exists():
                run("rm", "--recursive", "--one-file-system", stale)
    path.write_text(now)


def _lead(place: Path, target: Path) -> None:
    """Make `place` a link to `target`."""
    target.mkdir(exist_ok=True)
    if place.is_symlink() and place.readlink() == target:
        return
    if place.is_symlink() and not place.exists():
        place.unlink()  # of a cluster whose state directory was deleted by hand
    if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
        place.rmdir()
    if place.exists() or place.is_symlink():
        raise UsageError(
            f"{place} exists: another Kubernetes uses this machine, or has left it behind; move it away"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def _mount_kubelet_root(layout: Layout) -> None:
    """Show the state directory's folder at kubelet's place.

    Shared: mounts that a pod makes below are seen by others (mountPropagation: Bidirectional). systemd
    shares every mount, but without it / is private, and such pods would not start.
    """
    if leftovers.has_kubelet_root(layout):
        return
    KUBELET_ROOT.mkdir(parents=True, exist_ok=True)
    if any(KUBELET_ROOT.iterdir()):
        raise UsageError(
            f"{KUBELET_ROOT} is not empty: another Kubernetes uses this machine, "
            f"or has left it behind; move it away"
        )
    run("mount", "--bind", layout.kubelet, KUBELET_ROOT)
    run("mount", "--make-rshared", KUBELET_ROOT)
