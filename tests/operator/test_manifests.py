"""What is installed: virt-controller's pod is restricted, its standby is told by readiness, its rights name no wildcards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from qvirt_operator.arguments import parse
from qvirt_operator.main import LEASE

ROOT = Path(__file__).parents[2]
DOCUMENTS: list[dict[str, Any]] = [
    document
    for document in yaml.safe_load_all(
        (ROOT / "operator/manifests/virt-controller.yaml").read_text()
    )
    if document
]


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [document for document in DOCUMENTS if document["kind"] == kind]
    return found


def test_the_deployment_is_restricted() -> None:
    spec = of_kind("Deployment")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not spec.get("volumes")


def test_two_replicas_of_which_one_is_ready() -> None:
    spec = of_kind("Deployment")["spec"]
    assert spec["replicas"] == 2
    (container,) = spec["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_its_flags_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["command"][-2:] == ["-m", "qvirt_operator"]
    monkeypatch.setenv("POD_NAMESPACE", "kubevirt")
    monkeypatch.setenv("POD_NAME", "virt-controller-x")
    arguments = parse(container["args"])
    assert arguments.health_port == container["ports"][0]["containerPort"]
    assert (arguments.namespace, arguments.identity) == ("kubevirt", "virt-controller-x")


def test_no_wildcards_and_no_secrets() -> None:
    for kind in ("ClusterRole", "Role"):
        for rule in of_kind(kind)["rules"]:
            for words in (rule["apiGroups"], rule["resources"], rule["verbs"]):
                assert "*" not in words
            assert "secrets" not in rule["resources"]
    named = {
        r["resources"][0]: r["resourceNames"]
        for r in of_kind("Role")["rules"]
        if "resourceNames" in r
    }
    assert named == {
        "leases": [LEASE],
        "deployments": ["virt-api", "virt-controller"],
        "daemonsets": ["virt-handler"],
    }
