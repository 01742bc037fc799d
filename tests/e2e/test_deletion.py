"""Deletion never sticks: by force, with orphans, in the foreground, and with no handler there."""

from __future__ import annotations

import pytest
from tests.e2e.conftest import Cluster
from tests.e2e.guests import instance, machine

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_pod_removed_by_force(cluster: Cluster) -> None:
    """Its instance has Failed, the machine gets another one, and nothing holds the deletion of either up."""
    cluster.apply(instance("alone"), machine("vm", "RerunOnFailure"))
    cluster.running("alone")
    cluster.running("vm")
    first = cluster.get("vmi", "vm")["metadata"]["uid"]
    cluster.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")
    cluster.until("the instance has Failed", lambda: cluster.phase("alone") == "Failed")
    cluster.until("the machine has another instance", lambda: cluster.has_another("vm", first))
    cluster.running("vm")
    cluster.kubectl("delete", "vm,vmi", "--all", "--timeout=120s")


def test_orphans_live_on(cluster: Cluster) -> None:
    """`kubectl delete vm --cascade=orphan` leaves the instance running; a new machine of the name adopts nothing that is not its own."""
    cluster.apply(machine("vm"))
    guest = cluster.running("vm")
    boot = guest.run("cat /proc/sys/kernel/random/boot_id")
    cluster.kubectl("delete", "vm", "vm", "--cascade=orphan", "--timeout=60s")
    cluster.until("it has no owner", lambda: not _owners(cluster))
    assert guest.run("cat /proc/sys/kernel/random/boot_id") == boot
    cluster.kubectl("delete", "vmi", "vm", "--timeout=120s")
    cluster.until("its pod is gone", lambda: not cluster.items("pods"))


def _owners(cluster: Cluster) -> object:
    return cluster.get("vmi", "vm")["metadata"].get("ownerReferences")


def test_foreground_deletion(cluster: Cluster) -> None:
    """The machine goes last."""
    cluster.apply(machine("vm"))
    cluster.running("vm")
    cluster.kubectl("delete", "vm", "vm", "--cascade=foreground", "--timeout=180s", deadline=200)
    assert not cluster.get("vmi", "vm")
    cluster.until("its pod is gone", lambda: not cluster.items("pods"))


def test_an_instance_that_could_never_be_scheduled(cluster: Cluster) -> None:
    """It is told why it waits, and goes when it is told to."""
    cluster.apply(machine("vm", nodeSelector={"nowhere": "at-all"}))
    cluster.until("it is told", lambda: cluster.printable("vm") == "ErrorUnschedulable")
    cluster.kubectl("delete", "vm", "vm", "--timeout=120s")
    cluster.until("its pod is gone", lambda: not cluster.items("pods"))


def test_an_image_that_is_not_there(cluster: Cluster) -> None:
    vm = machine("vm")
    vm["spec"]["template"]["spec"]["volumes"][0]["containerDisk"]["image"] = "nobody/has:this"
    cluster.apply(vm)
    wanted = ("ErrImagePull", "ImagePullBackOff")
    cluster.until("it is told", lambda: cluster.printable("vm") in wanted)
    cluster.kubectl("delete", "vm", "vm", "--timeout=120s")
    cluster.until("its pod is gone", lambda: not cluster.items("pods"))
