"""`down`: the machine as it was before `up`. Finds what there is by looking, so it works after any crash."""

from __future__ import annotations

import time
from typing import Final

from qvirt_cluster import chains, leftovers, processes
from qvirt_cluster.claim import Claim, read_claim, release
from qvirt_cluster.commands import run
from qvirt_cluster.errors import ClusterError, NotRemoved
from qvirt_cluster.layout import LOCK, Layout
from qvirt_cluster.locks import held
from qvirt_cluster.progress import say

_KILL_DEADLINE: Final = 30.0
_CGROUP_DEADLINE: Final = 10.0


def down(layout: Layout) -> None:
    """Remove the cluster with all its data; nothing to remove is fine.

    Containers are killed, not stopped: nothing of the cluster is going to be used again.

    :raise NotRemoved: something is still there; the state directory then stays.
    """
    with held(LOCK, "starting or removing a cluster"):
        claim = read_claim()
        ours = claim is not None and claim.state == str(layout.state)
        if not ours and not layout.stamp.exists():
            say(f"there is no cluster in {layout.state}")
            return
        begin = time.monotonic()
        _end_processes(layout)
        if ours and claim is not None:
            _clean_machine(claim)
        left = leftovers.remove_kubelet_root(layout) + leftovers.unmount_all(layout.state)
        if left:
            # Deleting would go through a mount into what belongs to somebody else.
            raise NotRemoved(tuple(f"mount {point}" for point in left))
        leftovers.remove_outside_files(layout)
        # --one-file-system: never through a mount, even one that appears at this moment.
        run("rm", "--recursive", "--force", "--one-file-system", layout.state, deadline=300)
        if ours:
            release()
        say(f"the cluster in {layout.state} is gone ({time.monotonic() - begin:.1f} s)")


def _end_processes(layout: Layout) -> None:
    """Components and shims by their mark, containers by their control groups."""
    ids = leftovers.container_ids(layout)

    def find() -> frozenset[int]:
        return processes.marked(layout) | leftovers.container_processes(ids)

    # Those that would start others first.
    for name in ("kubelet", "containerd"):
        record = processes.recorded(layout, name)
        if record is not None:
            processes.stop(record, 0)
    ids |= leftovers.container_ids(layout)
    left = processes.kill_all(find, _KILL_DEADLINE)
    if left:
        raise NotRemoved(tuple(processes.describe(pid) for pid in sorted(left)))


def _clean_machine(claim: Claim) -> None:
    """Links, control groups and iptables chains; goes on after a failure and tells all of them."""
    leftovers.remove_links()
    # A group is busy until the kernel has done away with the last of its processes.
    processes.wait_until(leftovers.remove_cgroups, _CGROUP_DEADLINE)
    left = [f"network interface {name}" for name in leftovers.links()]
    left += [f"control group {path}" for path in leftovers.pod_cgroups()]
    try:
        chains.remove(claim.chains, claim.tables)
    except ClusterError as error:
        left.append(f"iptables: {error}")
    if left:
        raise NotRemoved(tuple(left))
