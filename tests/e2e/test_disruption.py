"""Parts of qvirt and of Kubernetes die under running guests; guests don't notice, and afterwards all is level again."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import ROOT, Cluster, Refused
from tests.e2e.guests import instance, machine

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(900)]

_CLUSTER = (sys.executable, str(ROOT / "cluster" / "cluster.py"))


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """One at a time disturbs the cluster."""
    with Path("/run/qvirt-disturb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _processes(cluster: Cluster, component: str) -> list[tuple[str, int]]:
    """(pod, process) of a component's containers on this machine."""
    text = cluster.kubectl(
        *("get", "pods", "-n", "kubevirt", f"--selector=kubevirt.io={component}", "-o=json")
    )
    found = []
    for pod in json.loads(text)["items"]:
        uid = pod["metadata"]["uid"]
        found += [(pod["metadata"]["name"], pid) for pid in _of_pod(uid)]
    return found


def _of_pod(uid: str) -> list[int]:
    """Process numbers of a pod's Python programs."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            inside = uid in (path / "cgroup").read_text().replace("_", "-")
            program = (path / "cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if inside and b"python3" in program:
            found.append(int(path.name))
    return found


def test_the_handler_is_killed_under_a_running_guest(cluster: Cluster) -> None:
    """The guest goes on, and the next handler takes care of it: its end is noticed, and its status."""
    cluster.apply(instance("guest"), instance("other"))
    guest, other = cluster.running("guest"), cluster.running("other")
    boot = guest.run("cat /proc/sys/kernel/random/boot_id")
    killed = _processes(cluster, "virt-handler")
    assert killed
    for _, pid in killed:
        os.kill(pid, signal.SIGKILL)
    other.leave("poweroff")  # while nobody looks, or nearly so
    assert guest.run("cat /proc/sys/kernel/random/boot_id") == boot
    cluster.until("another handler is ready", lambda: bool(cluster.ready("virt-handler")))
    assert not {pid for _, pid in killed} & {pid for _, pid in _processes(cluster, "virt-handler")}
    cluster.until("the end is noticed", lambda: cluster.phase("other") == "Succeeded")
    assert guest.run("cat /proc/sys/kernel/random/boot_id") == boot
    assert cluster.phase("guest") == "Running"
    cluster.apply(instance("late"))
    cluster.running("late")
    cluster.kubectl("delete", "vmi", "--all", "--timeout=120s")


def test_the_leader_is_killed_during_a_burst_of_creations(cluster: Cluster) -> None:
    """The standby leads within 15 s, every machine gets its instance, and every instance one pod."""
    (leader,) = cluster.ready("virt-controller")
    pids = [pid for pod, pid in _processes(cluster, "virt-controller") if pod == leader]
    names = [f"vm{number}" for number in range(6)]
    cluster.apply(*(machine(name) for name in names[:3]))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    begin = time.monotonic()
    cluster.apply(*(machine(name) for name in names[3:]))

    def level() -> bool:
        return len(cluster.items("vmi")) == len(names)

    cluster.until("each has its instance", level, 60)
    took = time.monotonic() - begin
    assert took < 15 + 5, f"failover took {took:.1f} s"  # kubectl's own time is in it
    for name in names:
        cluster.running(name, 400)
    created = [p["metadata"]["labels"]["vmi.kubevirt.io/id"] for p in cluster.items("pods")]
    assert sorted(created) == names
    cluster.until("one leads", lambda: len(cluster.ready("virt-controller")) == 1)


def test_the_api_server_is_gone_for_a_while(cluster: Cluster) -> None:
    """30 s without it, with guests running, and one of them ends meanwhile."""
    cluster.apply(instance("guest"), instance("other"))
    guest, other = cluster.running("guest"), cluster.running("other")
    boot = guest.run("cat /proc/sys/kernel/random/boot_id")
    record = json.loads(_run_dir().joinpath("kube-apiserver.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    try:
        end = time.monotonic() + 30
        other.leave("poweroff")
        while time.monotonic() < end:
            assert guest.run("cat /proc/sys/kernel/random/boot_id") == boot
            time.sleep(2)
    finally:
        subprocess.run((*_CLUSTER, "up"), check=True, capture_output=True, timeout=300)

    def answers() -> bool:
        try:
            return cluster.phase("guest") == "Running"
        except Refused:
            return False

    cluster.until("the guest is Running", answers)
    cluster.until("the other's end is noticed", lambda: cluster.phase("other") == "Succeeded")
    cluster.apply(instance("late"))
    cluster.running("late")
    assert guest.run("cat /proc/sys/kernel/random/boot_id") == boot


def _run_dir() -> Path:
    shown = subprocess.run((*_CLUSTER, "kubeconfig"), check=True, capture_output=True, text=True)
    return Path(shown.stdout.strip()).parent / "run"
