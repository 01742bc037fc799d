"""What is installed for the API: its registration, virt-api's rights, and the roles of users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from qvirt_api.subresources.table import ENDPOINTS, GROUP, VERSIONS
from qvirt_crds.names import API_SERVICE, INSTALL_NAMESPACE

_TEXT = (Path(__file__).parents[3] / "operator/manifests/subresources.yaml").read_text()
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(_TEXT))
ROLES = {d["metadata"]["name"]: d for d in DOCUMENTS if d["kind"] == "ClusterRole"}
_USERS = ("admin", "edit", "view", "default", "migrate")
#: Reference, section 5.6: in no role.
_NOBODYS = {
    "virtualmachines/removememorydump",
    "virtualmachineinstances/vsock",
    "virtualmachineinstances/backup",
    "virtualmachineinstances/redefine-checkpoint",
    "healthz",
    "start-cluster-profiler",
    "stop-cluster-profiler",
    "dump-cluster-profiler",
}


def granted(role: str) -> set[tuple[str, str]]:
    """Subresource and verb."""
    return {
        (resource, verb)
        for rule in ROLES[f"kubevirt.io:{role}"]["rules"]
        if GROUP in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_every_version_is_registered() -> None:
    services = {d["metadata"]["name"]: d["spec"] for d in DOCUMENTS if d["kind"] == "APIService"}
    assert set(services) == {f"{version}.{GROUP}" for version in VERSIONS}
    for name, spec in services.items():
        assert f"{spec['version']}.{spec['group']}" == name
        assert spec["service"] == {"namespace": INSTALL_NAMESPACE, "name": API_SERVICE, "port": 443}
        assert (spec["groupPriorityMinimum"], spec["versionPriority"]) == (1000, 15)
        assert "caBundle" not in spec  # virt-api's to write; applying again must not take it away


def test_roles_name_rows_and_their_verbs() -> None:
    rows = {(e.name, {"GET": "get", "PUT": "update"}[e.method]) for e in ENDPOINTS}
    for role in _USERS:
        unknown = granted(role) - rows - {("version", "list"), ("guestfs", "list")}
        assert not unknown, role
    everybody = {name for role in _USERS for name, _ in granted(role)}
    assert {e.name for e in ENDPOINTS} - everybody == _NOBODYS


def test_who_gets_what() -> None:
    assert granted("admin") - granted("edit") == {("virtualmachineinstances/vnc/screenshot", "get")}
    assert granted("view") < granted("edit") < granted("admin")
    assert {verb for _, verb in granted("view")} == {"get", "update"}
    assert [name for name, verb in granted("view") if verb == "update"] == ["expand-vm-spec"]
    for opening in ("console", "vnc", "portforward"):
        assert (f"virtualmachineinstances/{opening}", "get") not in granted("view")


@pytest.mark.parametrize("role", ["admin", "edit", "view"])
def test_roles_are_aggregated(role: str) -> None:
    labels = ROLES[f"kubevirt.io:{role}"]["metadata"]["labels"]
    assert labels[f"rbac.authorization.k8s.io/aggregate-to-{role}"] == "true"


def test_no_wildcards() -> None:
    for document in DOCUMENTS:
        for rule in document.get("rules", ()):
            for words in (rule["apiGroups"], rule["resources"], rule["verbs"]):
                assert "*" not in words
            assert "secrets" not in rule["resources"]
