"""The seed's virtual machine, as its author wrote it, on a real cluster: a real pod, a real guest at the pod's address."""

from __future__ import annotations

import pytest
from tests.e2e.conftest import ROOT, Cluster
from tests.e2e.guests import Guest

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(900)]


def test_seed(cluster: Cluster) -> None:
    """Its manifest is of v1alpha1 and names an image that the cluster's registry serves."""
    cluster.kubectl("apply", "-f", str(ROOT / "examples" / "seed-vm.yaml"))
    cluster.until("the VM is Running", lambda: cluster.printable("myvm") == "Running")
    vmi = cluster.get("vmi", "myvm")
    (pod,) = cluster.items("pods", f"kubevirt.io/created-by={vmi['metadata']['uid']}")
    address = pod["status"]["podIP"]
    assert address == vmi["status"]["interfaces"][0]["ipAddress"]
    assert vmi["status"]["nodeName"] == pod["spec"]["nodeName"]
    guest = Guest(address)
    cluster.until("the guest answers at the pod's address", guest.answers)
    keys = guest.page("/authorized_keys")
    assert "test@test.com" in keys

    shown = cluster.kubectl("get", "vms,vmis,pods").splitlines()
    rows = [line.split() for line in shown if line and not line.startswith("NAME")]
    assert [row[0].partition("/")[2][: len("virt-launcher-myvm-")] for row in rows] == [
        "myvm",
        "myvm",
        "virt-launcher-myvm-",
    ]
    assert rows[0][2:] == ["Running", "True"]
    assert rows[1][2:5] == ["Running", address, pod["spec"]["nodeName"]]

    cluster.kubectl("delete", "vm", "myvm", "--timeout=90s")
    cluster.until("its instance is gone", lambda: not cluster.get("vmi", "myvm"))
    cluster.until("its pod is gone", lambda: not cluster.items("pods"))
