"""The guest's ports behind Services: cluster addresses and node ports, TCP and UDP, both bindings; replica sets behind one Service."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.request
from typing import Any

import pytest
from tests.e2e.conftest import Cluster, Object
from tests.e2e.guests import SHELL, instance, instance_spec

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(900)]


def _service(name: str, selector: dict[str, str], **more: Any) -> Object:
    ports = [
        {"name": "http", "port": 8080, "targetPort": 80},
        {"name": "echo", "port": 7, "protocol": "UDP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": ports, **more},
    }


def _page(host: str, port: int) -> str:
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://{host}:{port}/hostname", timeout=5) as response,
    ):
        return str(response.read().decode().strip())
    return ""


def _echo(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.settimeout(2)
        sock.connect((host, port))
        sock.send(b"hello")
        return sock.recv(100) == b"hello"
    return False


@pytest.mark.parametrize("binding", ["bridge", "masquerade"])
def test_services(cluster: Cluster, binding: str) -> None:
    cluster.apply(
        instance("guest", labels={"app": "demo"}, binding=binding),
        _service("inside", {"app": "demo"}),
        _service("outside", {"app": "demo"}, type="NodePort"),
    )
    cluster.running("guest")
    (pod,) = cluster.pods("guest")
    (interface,) = cluster.get("vmi", "guest")["status"]["interfaces"]
    assert interface["ipAddress"] == pod["status"]["podIP"]
    assert interface["mac"]

    address = cluster.get("service", "inside")["spec"]["clusterIP"]
    outside = cluster.get("service", "outside")["spec"]
    http, echo = (port["nodePort"] for port in outside["ports"])
    node = pod["status"]["hostIP"]
    for host, tcp, udp in ((address, 8080, 7), (node, http, echo)):
        cluster.until(f"{host}:{tcp} answers", lambda h=host, p=tcp: _page(h, p) == "guest")  # type: ignore[misc]
        cluster.until(f"{host}:{udp}/udp answers", lambda h=host, p=udp: _echo(h, p))  # type: ignore[misc]


def test_a_replica_set_behind_a_service(cluster: Cluster) -> None:
    """0 -> 3 -> 1, by `kubectl scale`; the Service finds each of them, and only those that are there."""
    labels = {"app": "web"}
    replica_set = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": instance_spec()},
        },
    }
    cluster.apply(replica_set, _service("web", labels))
    _scale(cluster, 3)
    address = cluster.get("service", "web")["spec"]["clusterIP"]
    seen: set[str] = set()

    def all_seen() -> bool:
        seen.add(_page(address, 8080))
        return len(seen - {""}) == 3

    cluster.until("each of three answers behind the Service", all_seen, 240)
    assert seen - {""} == {vmi["metadata"]["name"] for vmi in cluster.items("vmi")}
    _scale(cluster, 1)
    cluster.until("one pod is left", lambda: len(cluster.items("pods")) == 1)
    (left,) = cluster.items("vmi")
    for _ in range(5):
        cluster.until("it answers", lambda: _page(address, 8080) == left["metadata"]["name"])


def _scale(cluster: Cluster, replicas: int) -> None:
    cluster.kubectl("scale", "vmirs", "web", f"--replicas={replicas}")

    def level() -> bool:
        status = cluster.get("vmirs", "web").get("status", {})
        counts = (status.get("replicas", 0), status.get("readyReplicas", 0))
        return counts == (replicas, replicas) and len(cluster.items("vmi")) == replicas

    cluster.until(f"{replicas} are ready", level, 240)


def test_cloud_init_from_a_secret(cluster: Cluster) -> None:
    """Plain text, base64 and a Secret say the same, and the guest has it."""
    import base64

    script = SHELL + "echo said >/run/www/said\n"
    encoded = base64.b64encode(script.encode()).decode()
    sources: dict[str, Object] = {
        "plain": {"userData": script},
        "base64": {"userDataBase64": encoded},
        "secret": {"secretRef": {"name": "seed"}},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "seed"},
        "stringData": {"userdata": script},
    }
    vmis = []
    for name, source in sources.items():
        vmi = json.loads(json.dumps(instance(name)))
        vmi["spec"]["volumes"][1] = {"name": "seed", "cloudInitNoCloud": source}
        vmis.append(vmi)
    cluster.apply(secret, *vmis)
    for name in sources:
        guest = cluster.running(name)
        cluster.until(f"{name} has run it", lambda g=guest: g.answers("/said"))  # type: ignore[misc]
        assert guest.page("/hostname").strip() == name
