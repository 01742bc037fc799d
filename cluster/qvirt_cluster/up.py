"""`up`: from a bare machine to a Ready node. What runs already and is unchanged stays as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from qvirt_cluster import processes
from qvirt_cluster.binaries import inspect, obtain
from qvirt_cluster.certificates import make_certificates
from qvirt_cluster.claim import stake
from qvirt_cluster.commands import run
from qvirt_cluster.components import PORTS, WAVES, Component, Name, Site, components
from qvirt_cluster.errors import ComponentFailed, UsageError
from qvirt_cluster.ground import check_state_directory, make_state_directory, prepare
from qvirt_cluster.host import look
from qvirt_cluster.kubeconfig import write_kubeconfigs
from qvirt_cluster.layout import LOCK, Layout
from qvirt_cluster.locks import held
from qvirt_cluster.pause import ensure_pause_image
from qvirt_cluster.probes import default_account, give_pod_network, node_condition, sickness
from qvirt_cluster.progress import say
from qvirt_cluster.site import load_site, save_site

_NODE_DEADLINE = 120.0
_LOOK_EVERY = 0.25
_STOP_GRACE = 10.0


def up(layout: Layout, environment: Mapping[str, str]) -> Site:
    """Bring the cluster up; returns when its node is Ready and pods can be created.

    :raise UsageError: not possible on this machine, or another cluster or Kubernetes has it.
    :raise MissingPackages: something is not installed.
    :raise BuildFailed: Kubernetes could not be had.
    :raise ComponentFailed: one did not start; the others go on, `up` tries again.
    """
    check_state_directory(layout)
    site = _decide(layout, environment)
    with held(LOCK, "starting or removing a cluster"):
        stake(layout)
        make_state_directory(layout)
        prepare(site)
        make_certificates(layout, site.host)
        write_kubeconfigs(layout, site.host.address)
        save_site(site)
        _start_all(site)
    return site


def _decide(layout: Layout, environment: Mapping[str, str]) -> Site:
    before = load_site(layout)
    if before is not None and not environment.get("K8S_BIN_DIR"):
        folder = before.binaries.folder
        folder = folder if folder.exists() else obtain(environment)
    else:
        folder = obtain(environment)
    binaries = inspect(folder)
    if before is not None and before.binaries.version != binaries.version:
        raise UsageError(
            f"the cluster in {layout.state} is Kubernetes {before.binaries.version}, "
            f"{folder} has {binaries.version}; run `down` first"
        )
    return Site(layout, look(), binaries)


def _start_all(site: Site) -> None:
    begin = time.monotonic()
    known = components(site)
    for wave in WAVES:
        started = [name for name in wave if _ensure_running(site.layout, known[name])]
        for name in wave:
            healthy = partial(sickness, site.layout, known[name].health)
            try:
                _await(site, known[name], healthy)
            except ComponentFailed:
                # It may have been on its way out when we looked: told to end a while ago.
                if name in started or not _ensure_running(site.layout, known[name]):
                    raise
                started.append(name)
                _await(site, known[name], healthy)
            if name in started:
                say(f"{name} is healthy ({time.monotonic() - begin:.1f} s)")
        if "containerd" in wave:
            ensure_pause_image(site)
    layout, node, kubelet = site.layout, site.host.node, known["kubelet"]
    _await(site, kubelet, partial(give_pod_network, layout, node), _NODE_DEADLINE)
    _await(site, kubelet, partial(node_condition, layout, node), _NODE_DEADLINE)
    manager = known["kube-controller-manager"]
    _await(site, manager, partial(default_account, layout), _NODE_DEADLINE)
    say(f"node {node} is Ready ({time.monotonic() - begin:.1f} s)")


def _ensure_running(layout: Layout, component: Component) -> bool:
    """Start it unless it runs as it should; True if it was started."""
    name = component.name
    record = processes.recorded(layout, name)
    if record is not None and record.alive:
        if record.digest == processes.digest(component.argv):
            return False
        say(f"{name} has another configuration now, restarting it")
        processes.stop(record, _STOP_GRACE)
    # One that an earlier `up` started, but was killed before it could record it.
    processes.kill_all(lambda: _strays(layout, component), _STOP_GRACE)
    _check_ports(name)
    processes.start(layout, name, component.argv)
    return True


def _strays(layout: Layout, component: Component) -> frozenset[int]:
    program = component.argv[0].encode()
    return frozenset(
        pid for pid in processes.marked(layout) if processes.command_line(pid)[:1] == (program,)
    )


def _check_ports(name: Name) -> None:
    for port in PORTS[name]:
        listening = run("ss", "-Hltnp", f"sport = :{port}")
        if listening.strip():
            raise UsageError(
                f"{name} needs TCP port {port}, which is taken: {' '.join(listening.split())}; "
                f"stop that first"
            )


def _await(
    site: Site, component: Component, sick: Callable[[], str], deadline: float | None = None
) -> None:
    """Wait until `sick` says nothing, as long as the component lives."""
    layout, name = site.layout, component.name
    end = time.monotonic() + (deadline or component.deadline)
    told = time.monotonic()
    while why := sick():
        record = processes.recorded(layout, name)
        now = time.monotonic()
        if record is None or not record.alive:
            status = processes.exit_status(record.pid) if record is not None else None
            how = f"ended with status {status}" if status is not None else "is not running"
            raise _failed(layout, name, how)
        if now > end:
            raise _failed(layout, name, f"is not healthy: {why}")
        if now - told > 10:
            told = now
            say(f"waiting for {name}: {why}")
        time.sleep(_LOOK_EVERY)


def _failed(layout: Layout, name: Name, how: str) -> ComponentFailed:
    tail = ""
    with suppress(OSError):
        tail = "\n".join(layout.log(name).read_text(errors="replace").splitlines()[-15:])
    return ComponentFailed(name, how, tail, str(layout.log(name)))
