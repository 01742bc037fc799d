"""The seed's virtual machine on a real cluster: a real pod, a real guest at the pod's address."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import pytest
import yaml
from tests.e2e.conftest import Cluster, push

from qvirt_crds import convert, v1alpha1

_ROOT = Path(__file__).resolve().parents[2]
_SEED = _ROOT / "examples" / "seed-vm.yaml"
_DISK = _ROOT / "build" / "guest" / "demo-guest.oci.tar"

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(900)]


def _seed_as_v1() -> str:
    """No virt-api converts yet, so the test does."""
    old = msgspec.convert(yaml.safe_load(_SEED.read_text()), v1alpha1.VirtualMachine)
    return msgspec.json.encode(convert.to_v1(old)).decode()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_seed(cluster: Cluster) -> None:
    push(_DISK, "kubevirt/cirros-registry-disk-demo:devel")
    cluster.kubectl("apply", "-f", "-", text=_seed_as_v1())

    cluster.until("the guest runs", lambda: _phase(cluster) == "Running")
    vmi = cluster.get("vmi", "myvm")
    (pod,) = cluster.items("pods", f"kubevirt.io/created-by={vmi['metadata']['uid']}")
    assert pod["status"]["podIP"] == vmi["status"]["interfaces"][0]["ipAddress"]
    assert vmi["status"]["nodeName"] == pod["spec"]["nodeName"]
    address = pod["status"]["podIP"]
    cluster.until("the guest answers at the pod's address", lambda: _answers(address))
    cluster.until("the VM is Running", lambda: _printable(cluster) == "Running")

    cluster.kubectl("delete", "vm", "myvm", "--timeout=90s")
    cluster.until("its instance is gone", lambda: not cluster.get("vmi", "myvm"))
    cluster.until("its pod is gone", lambda: not cluster.items("pods"))


def _phase(cluster: Cluster) -> str:
    return str(cluster.get("vmi", "myvm").get("status", {}).get("phase"))


def _printable(cluster: Cluster) -> str:
    return str(cluster.get("vm", "myvm").get("status", {}).get("printableStatus"))
