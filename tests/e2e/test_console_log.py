"""The serial console as a container's log, and that this container never outlives the guest."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.conftest import Cluster
from tests.e2e.guests import instance

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(900)]

_LOG = "guest-console-log"
#: There is no shell in the image.
_KILL = """
import os
for pid in filter(str.isdecimal, os.listdir("/proc")):
    with open(f"/proc/{pid}/comm") as comm:
        if comm.read() == "virt-launcher\\n":
            os.kill(int(pid), 9)
"""


def console(cluster: Cluster, name: str) -> str:
    (pod,) = cluster.pods(name)
    return cluster.kubectl("logs", pod["metadata"]["name"], "-c", _LOG)


def ends(cluster: Cluster, name: str) -> dict[str, int]:
    """Container -> exit code, of those that have ended."""
    (pod,) = cluster.pods(name)
    states: list[dict[str, Any]] = pod["status"]["containerStatuses"]
    ended = {c["name"]: c["state"].get("terminated") for c in states}
    return {container: state["exitCode"] for container, state in ended.items() if state}


def test_kubectl_logs_shows_the_serial_console(cluster: Cluster) -> None:
    quiet = instance("quiet")
    quiet["spec"]["domain"]["devices"]["logSerialConsole"] = False
    cluster.apply(instance("told"), instance("killed"), quiet)
    guest = cluster.running("told")
    cluster.until("the log has the boot", lambda: "login:" in console(cluster, "told"))

    guest.leave("poweroff")
    cluster.until("told has Succeeded", lambda: cluster.phase("told") == "Succeeded")
    cluster.until("its pod has ended", lambda: len(ends(cluster, "told")) == 3)
    assert set(ends(cluster, "told").values()) == {0}
    # To the last word.
    assert "Power down" in console(cluster, "told")

    cluster.running("killed")
    (pod,) = cluster.pods("killed")
    cluster.kubectl("exec", pod["metadata"]["name"], "-c", _LOG, "--", "python3", "-c", _KILL)
    cluster.until("killed has Failed", lambda: cluster.phase("killed") == "Failed")
    cluster.until("its pod has ended", lambda: len(ends(cluster, "killed")) == 3)
    assert ends(cluster, "killed")[_LOG] == 0

    cluster.running("quiet")
    (pod,) = cluster.pods("quiet")
    assert _LOG not in [c["name"] for c in pod["spec"]["containers"]]
