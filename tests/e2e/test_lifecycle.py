"""Starting, stopping, ending by the guest itself, and deletion with guests that take their time."""

from __future__ import annotations

import time

import pytest
from tests.e2e.conftest import Cluster
from tests.e2e.guests import instance, machine

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(900)]

#: The guest of GRACE seconds that is asked to go takes this long, and is not cut short.
_SLOW = "mkdir -p /etc/qvirt; echo delay 10 >/etc/qvirt/powerbutton\n"
_DEAF = "mkdir -p /etc/qvirt; echo ignore >/etc/qvirt/powerbutton\n"


def test_start_and_stop_by_run_strategy(cluster: Cluster) -> None:
    cluster.apply(machine("vm", "Halted"))
    cluster.until("the VM is Stopped", lambda: cluster.printable("vm") == "Stopped")
    assert not cluster.get("vmi", "vm")

    cluster.patch("vm", "vm", runStrategy="Always")
    cluster.running("vm")
    cluster.until("the VM is Running", lambda: cluster.printable("vm") == "Running")
    assert cluster.condition("vm", "vm", "Ready")["status"] == "True"

    cluster.patch("vm", "vm", runStrategy="Halted")
    cluster.until("the VM is Stopped again", lambda: cluster.printable("vm") == "Stopped")
    cluster.until("its instance is gone", lambda: not cluster.get("vmi", "vm"))
    cluster.until("its pod is gone", lambda: not cluster.items("pods"))


def test_a_guest_that_powers_off(cluster: Cluster) -> None:
    """RerunOnFailure lets it rest, Always starts it again, Once never; an instance alone has Succeeded."""
    cluster.apply(
        machine("rerun", "RerunOnFailure"),
        machine("always"),
        machine("once", "Once"),
        instance("alone"),
    )
    guests = {name: cluster.running(name) for name in ("rerun", "always", "once", "alone")}
    first = cluster.get("vmi", "always")["metadata"]["uid"]
    for guest in guests.values():
        guest.leave("poweroff")

    cluster.until("alone has Succeeded", lambda: cluster.phase("alone") == "Succeeded")
    cluster.until("its pod has Succeeded", lambda: _pod_phases(cluster) == ["Succeeded"])
    cluster.until("rerun is Stopped", lambda: cluster.printable("rerun") == "Stopped")
    cluster.until("once is Stopped", lambda: cluster.printable("once") == "Stopped")
    cluster.until("always has another instance", lambda: cluster.has_another("always", first))
    cluster.running("always")
    assert cluster.printable("rerun") == cluster.printable("once") == "Stopped"


def test_a_guest_that_panics(cluster: Cluster) -> None:
    """The instance has Failed, and RerunOnFailure makes another one."""
    cluster.apply(machine("vm", "RerunOnFailure"), instance("alone"))
    guests = [cluster.running(name) for name in ("vm", "alone")]
    first = cluster.get("vmi", "vm")["metadata"]["uid"]
    for guest in guests:
        guest.leave("echo c >/proc/sysrq-trigger")
    cluster.until("alone has Failed", lambda: cluster.phase("alone") == "Failed")
    cluster.until("its pod has Failed", lambda: _pod_phases(cluster) == ["Failed"])
    cluster.until("the VM has another instance", lambda: cluster.has_another("vm", first))
    cluster.running("vm")


def _pod_phases(cluster: Cluster) -> list[str]:
    """Of the instance `alone`; the kubelet tells of a pod's end a moment after virt-handler."""
    return [pod["status"]["phase"] for pod in cluster.pods("alone")]


def _delete(cluster: Cluster, what: str) -> str:
    """Ask for the end of the VM or of its pod, and don't wait; the pod's uid."""
    (pod,) = cluster.pods("vm")
    name = "vm" if what == "vm" else pod["metadata"]["name"]
    cluster.kubectl("delete", what, name, "--wait=false")
    return str(pod["metadata"]["uid"])


@pytest.mark.parametrize("what", ["vm", "pod"])
def test_a_slow_guest_is_waited_for(cluster: Cluster, what: str) -> None:
    """It has 60 s, takes 10 s, and its last words reach its disk before the pod is gone."""
    cluster.apply(machine("vm", "RerunOnFailure", script=_SLOW, grace=60))
    cluster.running("vm")
    begin = time.monotonic()
    uid = _delete(cluster, what)
    exits: list[dict[str, object]] = []

    def gone() -> bool:
        found = [p for p in cluster.items("pods") if p["metadata"]["uid"] == uid]
        exits.extend(
            status["state"]["terminated"]
            for status in (found[0]["status"].get("containerStatuses", ()) if found else ())
            if status["name"] == "compute" and "terminated" in status["state"]
        )
        return not found

    cluster.until("its pod is gone", gone, 120)
    assert time.monotonic() - begin >= 10
    # Seen where kubelet leaves the time for it: an orderly end, no kill.
    assert all(state["exitCode"] == 0 for state in exits), exits
    if what == "vm":
        cluster.until("the VM is gone", lambda: not cluster.get("vm", "vm"))


@pytest.mark.parametrize("what", ["vm", "pod"])
def test_a_deaf_guest_is_cut_off_after_its_grace_period(cluster: Cluster, what: str) -> None:
    cluster.apply(machine("vm", "RerunOnFailure", script=_DEAF, grace=7))
    cluster.running("vm")
    begin = time.monotonic()
    uid = _delete(cluster, what)
    cluster.until(
        "its pod is gone",
        lambda: uid not in [p["metadata"]["uid"] for p in cluster.items("pods")],
        120,
    )
    assert time.monotonic() - begin >= 7
