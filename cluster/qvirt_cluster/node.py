"""A node without a control plane: containerd, and a kubelet that knows nothing but a folder of static pods.

It has a network, mounts and processes of its own, so that it is as good as another machine beside whatever runs on this one, a
cluster among it. With its first process all of it ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from qvirt_cluster import claim, leftovers, processes
from qvirt_cluster.binaries import inspect, obtain
from qvirt_cluster.commands import run
from qvirt_cluster.components import Health, Site, components, standalone_kubelet
from qvirt_cluster.configuration import node_files
from qvirt_cluster.errors import ComponentFailed, NotRemoved, UsageError
from qvirt_cluster.ground import check_state_directory, make_state_directory
from qvirt_cluster.host import look
from qvirt_cluster.layout import (
    DEFAULT_NODE_STATE,
    KUBELET_HEALTH_PORT,
    KUBELET_ROOT,
    NODE_ADDRESS,
    NODE_CGROUP,
    NODE_GATEWAY,
    NODE_LINK,
    NODE_LOCK,
    NODE_NAMESPACE,
    Layout,
)
from qvirt_cluster.locks import held
from qvirt_cluster.pause import ensure_pause_image
from qvirt_cluster.probes import sickness
from qvirt_cluster.progress import say

_NETNS: Final = Path("/run/netns") / NODE_NAMESPACE
_CGROUPS: Final = Path("/sys/fs/cgroup")
_DEADLINE: Final = 90.0
_LOOK_EVERY: Final = 0.25
_END_DEADLINE: Final = 30.0


def node_up(layout: Layout, environment: Mapping[str, str]) -> Site:
    """Start it; returns when static pods can be started.

    :raise UsageError: there is another one, or its address is taken.
    :raise ComponentFailed: it did not come up; `node-down` removes what there is.
    """
    check_state_directory(layout)
    site = _site(layout, environment)
    with held(NODE_LOCK, "starting or removing a node"):
        if _runs(layout):
            return site
        if _NETNS.exists():
            raise UsageError(
                f"{_NETNS} exists: this machine has a node without a control plane already; remove it with node-down"
            )
        make_state_directory(layout)
        _write(site)
        _connect()
        _make_cgroups()
        processes.start(layout, "node", _argv(layout))
        _await(layout, "containerd", components(site)["containerd"].health)
        ensure_pause_image(site)
        (layout.config / "go").touch()
        health = Health(url=f"http://{NODE_ADDRESS}:{KUBELET_HEALTH_PORT}/healthz")
        _await(layout, "kubelet", health)
    return site


def node_down(layout: Layout) -> None:
    """Remove it with all its data; nothing to remove is fine.

    :raise NotRemoved: something is still there; the state directory then stays.
    """
    with held(NODE_LOCK, "starting or removing a node"):
        if not layout.stamp.exists():
            say(f"there is no node in {layout.state}")
            return
        record = processes.recorded(layout, "node")
        if record is not None:
            processes.stop(record, 0)
        left = processes.kill_all(lambda: processes.marked(layout), _END_DEADLINE)
        if left:
            raise NotRemoved(tuple(processes.describe(pid) for pid in sorted(left)))
        _clean_machine(layout)
        run("rm", "--recursive", "--force", "--one-file-system", layout.state, deadline=300)
        say(f"the node in {layout.state} is gone")


def enter(layout: Layout) -> str:
    """What a command begins with that is to run there, as on a machine of its own."""
    record = processes.recorded(layout, "node")
    assert record is not None
    children = Path(f"/proc/{record.pid}/task/{record.pid}/children").read_text().split()
    return f"nsenter --target={children[0]} --mount --net --uts --pid"


def default_layout(state: Path | None) -> Layout:
    """The node that a command is about."""
    return Layout((state or DEFAULT_NODE_STATE).resolve())


def _site(layout: Layout, environment: Mapping[str, str]) -> Site:
    host = dataclasses.replace(look(), node=NODE_NAMESPACE, address=NODE_ADDRESS)
    return Site(layout, host, inspect(obtain(environment)))


def _runs(layout: Layout) -> bool:
    record = processes.recorded(layout, "node")
    return record is not None and record.alive


def _write(site: Site) -> None:
    """Directories and configuration, and how the kernel was set before."""
    layout = site.layout
    folders = (layout.logs, layout.run, layout.config, layout.kubelet, layout.manifests)
    for folder in (*folders, layout.state / "var-log"):
        folder.mkdir(parents=True, exist_ok=True)
    layout.manifests.chmod(0o700)
    for path, text in node_files(layout, site.host, site.binaries).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (layout.config / "node-init").write_text(_script(site))
    _before(layout).write_text(json.dumps(claim.kernel_settings()))


def _before(layout: Layout) -> Path:
    return layout.state / "kernel-settings.json"


def _script(site: Site) -> str:
    """The first process: mounts over every place that is wired into kubelet, containerd and the plugins, then both of them."""
    layout = site.layout
    containerd = shlex.join(components(site)["containerd"].argv)
    kubelet = shlex.join(standalone_kubelet(site))
    return f"""set -eu
mkdir -p {KUBELET_ROOT} /run/containerd /var/lib/cni
mount --bind {layout.kubelet} {KUBELET_ROOT}
mount --make-rshared {KUBELET_ROOT}
mount --bind {layout.state}/var-log /var/log
mount -t tmpfs tmpfs /run/containerd
mount -t tmpfs tmpfs /var/lib/cni
{containerd} >>{layout.log("containerd")} 2>&1 &
# The pause image comes first: it can't be pulled.
until [ -e {layout.config}/go ]; do sleep 0.1; done
{kubelet} >>{layout.log("kubelet")} 2>&1 &
wait
"""


def _argv(layout: Layout) -> tuple[str, ...]:
    return (
        *("nsenter", f"-n{_NETNS}"),
        *("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("sh", f"{layout.config}/node-init"),
    )


def _connect() -> None:
    """A network namespace, and a cable from this machine to it."""
    run("ip", "netns", "add", NODE_NAMESPACE)
    run("ip", "link", "add", NODE_LINK, "type", "veth", "peer", "eth0", "netns", NODE_NAMESPACE)
    run("ip", "address", "add", f"{NODE_GATEWAY}/30", "dev", NODE_LINK)
    run("ip", "link", "set", NODE_LINK, "up")
    inside = ("ip", "-n", NODE_NAMESPACE)
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "address", "add", f"{NODE_ADDRESS}/30", "dev", "eth0")
    run(*inside, "link", "set", "eth0", "up")
    # kubelet finds its address by it.
    run(*inside, "route", "add", "default", "via", NODE_GATEWAY)


def _make_cgroups() -> None:
    for hierarchy in _hierarchies():
        (hierarchy / NODE_CGROUP).mkdir(exist_ok=True)


def _hierarchies() -> tuple[Path, ...]:
    """Where control groups are made: one place with cgroup v2, one for each controller with v1."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return (_CGROUPS,)
    return tuple(path.parent for path in _CGROUPS.glob("*/cgroup.procs"))


def _await(layout: Layout, what: str, health: Health) -> None:
    sick = partial(sickness, layout, health)
    end = time.monotonic() + _DEADLINE
    while why := sick():
        if not _runs(layout) or time.monotonic() > end:
            log = layout.log(what)
            tail = ""
            with suppress(OSError):
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ComponentFailed(what, f"is not healthy: {why}", tail, str(log))
        time.sleep(_LOOK_EVERY)
    say(f"{what} is healthy")


def _clean_machine(layout: Layout) -> None:
    """What is left when its processes are gone: the network, control groups, kernel settings, and mount points that were made."""
    if _NETNS.exists():
        run("ip", "netns", "delete", NODE_NAMESPACE)
    run("ip", "link", "delete", NODE_LINK, accept=(0, 1))
    processes.wait_until(lambda: leftovers.remove_cgroups(NODE_CGROUP), _END_DEADLINE)
    if left := leftovers.pod_cgroups(NODE_CGROUP):
        raise NotRemoved(tuple(f"control group {path}" for path in left))
    with suppress(OSError, ValueError):
        # A cluster beside it wants them as its own kubelet has set them.
        if claim.read_claim() is None:
            claim.restore(json.loads(_before(layout).read_text()))
    for folder in (KUBELET_ROOT, Path("/run/containerd"), Path("/var/lib/cni")):
        with suppress(OSError):  # somebody else's, too
            os.rmdir(folder)
