"""What the cluster's own virt-api refuses, what kubectl shows of it, and that nothing sticks while it is away."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from tests.api.bad_manifests import BAD
from tests.e2e.conftest import Cluster, Refused
from tests.e2e.guests import instance, machine

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(600)]


def test_bad_manifests(cluster: Cluster) -> None:
    """At least 15, each refused with its field and its reason, by `create` and by a dry run; nothing is stored."""
    assert len(BAD) >= 15
    for bad in BAD:
        expected = (
            f"{bad.path}: {bad.message}" if bad.path else f"denied the request: {bad.message}"
        )
        for options in ((), ("--dry-run=server",)):
            with pytest.raises(Refused) as refused:
                cluster.kubectl("create", *options, "-f", "-", text=json.dumps(bad.manifest))
            assert expected in str(refused.value), bad.name
    assert not cluster.items("vm,vmi,vmirs")


def test_a_dry_run_stores_nothing(cluster: Cluster) -> None:
    text = json.dumps(instance("guest"))
    shown = cluster.kubectl("create", "--dry-run=server", "-f", "-", "-o=json", text=text)
    spec = json.loads(shown)["spec"]
    assert spec["domain"]["machine"]["type"]
    assert spec["domain"]["firmware"]["uuid"]
    assert not cluster.items("vmi")


def test_explain_reads_well(cluster: Cluster) -> None:
    """Every level has a sentence."""
    for path in ("vm.spec", "vmi.spec.domain", "vmi.spec.domain.devices.interfaces"):
        assert "<empty>" not in cluster.kubectl("explain", path).partition("FIELDS")[0]


def test_a_dead_virt_api_blocks_neither_guests_nor_deletion(cluster: Cluster) -> None:
    """Creation is refused with a sentence; what runs goes on, ends, and is deleted."""
    cluster.apply(machine("vm"), instance("alone"))
    cluster.running("vm")
    guest = cluster.running("alone")
    with Path("/run/qvirt-disturb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _scale(cluster, 0)
        try:
            with pytest.raises(Refused, match="webhook"):
                cluster.apply(instance("late"))
            guest.leave("poweroff")
            cluster.until("its end is noticed", lambda: cluster.phase("alone") == "Succeeded")
            cluster.kubectl("delete", "vm,vmi", "--all", "--timeout=150s", deadline=170)
            cluster.until("no pod is left", lambda: not cluster.items("pods"))
        finally:
            _scale(cluster, 2)


def _scale(cluster: Cluster, replicas: int) -> None:
    which = ("deployment/virt-api", "-n", "kubevirt")
    cluster.kubectl("scale", *which, f"--replicas={replicas}")
    selector = "--selector=kubevirt.io=virt-api"

    def level() -> bool:
        names = cluster.kubectl("get", "pods", "-n", "kubevirt", selector, "-o=name").split()
        return len(names) == len(cluster.ready("virt-api")) == replicas

    cluster.until(f"virt-api has {replicas} replicas", level, 240)
