"""A guest with an agent on a real cluster: what `kubectl get vmi -o yaml` shows of it, probes inside of it, access credentials."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from tests.api.virtctl import from_kubeconfig
from tests.e2e.conftest import ROOT, Cluster, push

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(1800)]

IMAGE = "qvirt/cloud-guest:latest"
_ARCHIVE = ROOT / "build" / "guest" / "cloud-guest.oci.tar"
#: Of a boot with cloud-init, emulated, on a machine that is busy.
_BOOT = 900
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyAcmn1zHrGCuP8Wbbyu1gmBnqLHBMuUCuo4U7FjIQ3 one@test"
USER_DATA = """#cloud-config
users:
  - name: vera
    lock_passwd: false
    shell: /bin/bash
"""

Object = dict[str, Any]


def _secret(name: str, **values: str) -> Object:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def _spec() -> Object:
    volumes: Object = {
        "root": {"containerDisk": {"image": IMAGE}},
        "seed": {"cloudInitNoCloud": {"userData": USER_DATA}},
    }
    agent = {"qemuGuestAgent": {"users": ["vera"]}}
    source = {"secret": {"secretName": "keys"}}
    # It is Ready when somebody in the guest has made the file.
    inside = {"exec": {"command": ["cat", "/run/ready"]}, "periodSeconds": 3, "timeoutSeconds": 20}
    alive = {"guestAgentPing": {}, "timeoutSeconds": 30, "failureThreshold": 60}
    return {
        "terminationGracePeriodSeconds": 0,
        "domain": {
            "cpu": {"cores": 2},
            "memory": {"guest": "1Gi"},
            "devices": {
                "disks": [{"name": name, "disk": {"bus": "virtio"}} for name in volumes],
                "interfaces": [{"name": "default", "masquerade": {}}],
            },
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [{"name": name, **source} for name, source in volumes.items()],
        "accessCredentials": [{"sshPublicKey": {"source": source, "propagationMethod": agent}}],
        "readinessProbe": inside,
        "livenessProbe": alive,
    }


def _in_guest(cluster: Cluster, script: str) -> str:
    """A shell script run in the guest, by the program that probes use."""
    (pod,) = cluster.pods("cloudy")
    probe = ("virt-probe", "--timeoutSeconds", "60", "--command", "/bin/sh", "--", "-c", script)
    return cluster.kubectl("exec", pod["metadata"]["name"], "-c", "compute", "--", *probe)


def test_a_guest_with_an_agent(cluster: Cluster) -> None:
    if not _ARCHIVE.exists():
        pytest.skip("needs the cloud guest: make guest")
    push(_ARCHIVE, IMAGE)
    vmi = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "cloudy"},
        "spec": _spec(),
    }
    cluster.apply(_secret("keys", one=f"{KEY}\n"), vmi)

    def is_true(kind: str) -> bool:
        return cluster.condition("vmi", "cloudy", kind).get("status") == "True"

    cluster.until("the agent is there", lambda: is_true("AgentConnected"), _BOOT)
    cluster.until(
        "its system is known",
        lambda: "guestOSInfo" in cluster.get("vmi", "cloudy")["status"],
    )
    system = cluster.get("vmi", "cloudy")["status"]["guestOSInfo"]
    assert (system["id"], system["name"], system["machine"]) == (
        "debian",
        "Debian GNU/Linux",
        "x86_64",
    )

    def card() -> Object:
        interfaces: list[Object] = cluster.get("vmi", "cloudy")["status"]["interfaces"]
        return interfaces[0]

    (pod,) = cluster.pods("cloudy")
    cluster.until("its address is there", lambda: bool(card().get("ipAddress")))
    assert card()["infoSource"] == "domain, guest-agent"
    assert card()["interfaceName"].startswith("en")
    assert card()["ipAddress"] == pod["status"]["podIP"]

    cluster.until("its keys are there", lambda: is_true("AccessCredentialsSynchronized"))
    assert "AccessCredentialsSyncSuccess" in cluster.reasons("cloudy")
    assert _in_guest(cluster, "cat ~vera/.ssh/authorized_keys").splitlines() == [KEY]

    asyncio.run(_through_virt_api(cluster))
    assert not is_true("Ready")
    _in_guest(cluster, "touch /run/ready")
    cluster.until("its probe succeeds", lambda: is_true("Ready"))
    _in_guest(cluster, "rm /run/ready")
    cluster.until("its probe fails", lambda: not is_true("Ready"))
    assert cluster.phase("cloudy") == "Running"

    cluster.apply(_secret("keys", one=f"{KEY}\n", two=f"{KEY} again\n"))
    keys = [KEY, f"{KEY} again"]
    cluster.until(
        "a new key is there",
        lambda: _in_guest(cluster, "cat ~vera/.ssh/authorized_keys").splitlines() == keys,
        300,
    )
    cluster.kubectl("delete", "vmi", "cloudy", "--timeout=120s")


async def _through_virt_api(cluster: Cluster) -> None:
    """What virtctl shows, and its freeze: the guest's own agent answers at the other end."""
    async with from_kubeconfig(cluster.kubeconfig, cluster.namespace) as virtctl:
        system = await virtctl.ask("cloudy", "guestosinfo")
        assert system.status == 200, system
        assert system.json()["os"]["id"] == "debian"
        disks = await virtctl.ask("cloudy", "filesystemlist")
        assert "/" in [disk["mountPoint"] for disk in disks.json()["items"]]
        users = await virtctl.ask("cloudy", "userlist")
        assert users.status == 200, users
        for verb in ("freeze", "unfreeze"):
            answer = await virtctl.press("cloudy", verb)
            assert answer.status < 300, answer
