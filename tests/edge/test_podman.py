"""The same file and image under podman; and a VM that is to run always."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.edge.conftest import DEMO_NAME, HTTP, Podman, qvirt_pod, until

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(420)]

#: Powers itself off when it is told to, and has a claim.
ALWAYS = f"""
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {{name: keeper}}
spec:
  runStrategy: Always
  template:
    spec:
      terminationGracePeriodSeconds: 90
      domain:
        memory: {{guest: 64Mi}}
        devices:
          interfaces: [{{name: default, masquerade: {{}}, ports: [{{name: http, port: 80}}]}}]
          disks: [{{name: root, disk: {{bus: virtio}}}}, {{name: data, disk: {{bus: virtio}}}}]
      networks: [{{name: default, pod: {{}}}}]
      volumes:
      - {{name: root, containerDisk: {{image: "{DEMO_NAME}"}}}}
      - {{name: data, persistentVolumeClaim: {{claimName: data}}}}
"""


def test_the_same_file_under_podman(podman: Podman, seed_pod: Path) -> None:
    node = podman
    node.run(*node.podman, "kube", "play", seed_pod)
    until("the guest answers", lambda: node.hostname(HTTP) == "myvm", node.picture, 240)

    console = (*node.podman, "exec", "myvm-compute", "virt-console")
    assert "login:" in node.run(*console, "--until", "login:", "--timeout", "60")

    node.run(*node.podman, "stop", "--time", "125", "myvm-compute", deadline=150)
    console_log = node.said(*node.podman, "logs", "myvm-guest-console-log")
    assert "Power down" in console_log
    assert "phase Succeeded (GuestShutdown)" in node.said(*node.podman, "logs", "myvm-compute")
    node.run(*node.podman, "kube", "down", seed_pod)
    assert node.run(*node.podman, "ps", "--all", "--quiet").split() == []


def test_one_that_always_runs(podman: Podman, tmp_path: Path) -> None:
    node = podman
    claim = node.folder / "data.img"
    with claim.open("wb") as file:
        file.truncate(1 << 20)
    claim.chmod(0o666)
    pod = tmp_path / "keeper.yaml"
    pod.write_text(qvirt_pod(ALWAYS, "--publish", f"{HTTP}:80", "--pvc", f"data={claim}"))
    node.run(*node.podman, "kube", "play", pod)
    until("the guest answers", lambda: node.hostname(HTTP) == "keeper", node.picture, 240)

    # A guest that ends by itself is started again, with its disk's image at hand and its claim as it left it.
    console = (*node.podman, "exec", "-i", "keeper-compute", "virt-console", "--timeout", "60")
    node.run(*console, "--until", "login:")
    # One after the other: login throws away what was typed before.
    node.run(*console, "--until", "/root#", text="root\n")
    node.said(*console, text="printf kept >/dev/vdb; sync; poweroff\n")
    compute = ("inspect", "--format={{.RestartCount}}", "keeper-compute")
    until(
        "it was started again",
        lambda: node.run(*node.podman, *compute).strip() not in ("", "0"),
        node.picture,
        120,
    )
    until("the guest answers again", lambda: node.hostname(HTTP) == "keeper", node.picture, 240)
    assert claim.read_bytes()[:4] == b"kept"

    # So is one whose launcher was killed.
    before = int(node.run(*node.podman, *compute))
    # Not by `podman kill`, which means that it is to stay so.
    node.run(
        "kill",
        "-KILL",
        node.run(*node.podman, "inspect", "--format={{.State.Pid}}", "keeper-compute").strip(),
    )
    until(
        "it was started a third time",
        lambda: int(node.run(*node.podman, *compute)) > before,
        node.picture,
        60,
    )
    until("the guest answers once more", lambda: node.hostname(HTTP) == "keeper", node.picture, 240)
    node.run(*node.podman, "stop", "--time", "125", "keeper-compute", deadline=150)
    assert "phase Succeeded (GuestShutdown)" in node.said(*node.podman, "logs", "keeper-compute")
