"""A VM as a static pod of a real kubelet without an API server: comes up, is reached, has a console, goes down in good order."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.edge.conftest import DEMO, DEMO_NAME, HTTP, LAUNCHER, KubeletNode, hostname, run, until

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(420)]


def test_a_file_is_a_vm(kubelet_node: KubeletNode, seed_pod: Path, tmp_path: Path) -> None:
    node = kubelet_node
    node.run(*node.ctr, "images", "import", LAUNCHER)
    # containerd takes an archive's own name, podman makes a full one of it.
    named = tmp_path / "disk.tar"
    run("skopeo", "copy", "--quiet", f"oci-archive:{DEMO}", f"docker-archive:{named}:{DEMO_NAME}")
    node.run(*node.ctr, "images", "import", named)

    file = node.manifests / "myvm.yaml"
    # Whole from the beginning: the kubelet reads what it sees, and passes over names with a dot in front.
    shutil.copy(seed_pod, node.manifests / ".myvm.yaml")
    (node.manifests / ".myvm.yaml").rename(file)
    until("the guest answers", lambda: hostname(node.address, HTTP) == "myvm", node.picture, 240)

    console = (*node.ctr, "tasks", "exec", "--exec-id", "console", node.compute(), "virt-console")
    assert "login:" in node.run(*console, "--until", "login:", "--timeout", "60")

    file.unlink()
    until("the pod has ended", lambda: not node.tasks(), node.picture, 150)
    assert "power button pressed" in node.log("guest-console-log")
    assert "Power down" in node.log("guest-console-log")
    assert "phase Succeeded (GuestShutdown)" in node.log("compute")
    pods = node.manifests.parent / "kubelet/pods"
    until("the kubelet has forgotten it", lambda: not any(pods.glob("*")), node.picture, 120)
    # Its network, too: the CNI plugin could take it down.
    assert "veth" not in node.run("ip", "-brief", "link", "show", "type", "veth").replace(
        "eth0@", ""
    )
