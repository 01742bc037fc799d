"""What virt-handler is installed with, as far as its node server is concerned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from qvirt_crds.names import CA_CONFIG_MAP, HANDLER_SECRET, INSTALL_NAMESPACE, NODE_SERVER_PORT

MANIFEST = Path(__file__).resolve().parents[2] / "operator/manifests/virt-handler.yaml"
DOCUMENTS: list[dict[str, Any]] = [d for d in yaml.safe_load_all(MANIFEST.read_text()) if d]


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [document for document in DOCUMENTS if document["kind"] == kind]
    return found


def test_its_port_is_where_virt_api_looks() -> None:
    spec = of_kind("DaemonSet")["spec"]["template"]["spec"]
    (container,) = [c for c in spec["containers"] if c["name"] == "virt-handler"]
    ports = {port["name"]: port for port in container["ports"]}
    assert ports["node-server"] == {"name": "node-server", "containerPort": NODE_SERVER_PORT}
    # In the pod's network only: no port of the node is taken.
    assert not spec.get("hostNetwork")


def test_it_reads_its_certificate_and_nobody_elses_secrets() -> None:
    assert of_kind("Role")["metadata"]["namespace"] == INSTALL_NAMESPACE
    assert of_kind("Role")["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [HANDLER_SECRET],
            "verbs": ["get"],
        },
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [CA_CONFIG_MAP],
            "verbs": ["get"],
        },
    ]
    for rule in of_kind("ClusterRole")["rules"]:
        assert not {"secrets", "*"} & {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}
