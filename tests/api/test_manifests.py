"""What is installed of virt-api: restricted pods, rights to a few named objects, webhooks that can hold no deletion."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.conftest import documents

from qvirt_api import admission, trust
from qvirt_api.arguments import parse
from qvirt_api.certificates import identities
from qvirt_crds import schema
from qvirt_crds.names import API_SERVICE, CA_CONFIG_MAP, CA_SECRET, INSTALL_NAMESPACE

Object = dict[str, Any]

PARTS = documents("virt-api.yaml")
WEBHOOKS = [
    (configuration["kind"], webhook)
    for configuration in documents("webhooks.yaml")
    for webhook in configuration["webhooks"]
]


def of_kind(kind: str) -> Object:
    (found,) = [part for part in PARTS if part["kind"] == kind]
    return found


def test_the_deployment_is_restricted() -> None:
    deployment = of_kind("Deployment")["spec"]
    assert deployment["replicas"] == 2
    spec = deployment["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }
    assert not spec.get("volumes")


def test_its_flags_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["command"][-2:] == ["-m", "qvirt_api"]
    monkeypatch.setenv("POD_NAMESPACE", INSTALL_NAMESPACE)
    arguments = parse(container["args"])
    assert arguments.port == container["ports"][0]["containerPort"]
    assert arguments.namespace == INSTALL_NAMESPACE


def test_lives_that_make_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--authority-hours=10", "--certificate-hours=3"])
    assert "five times" in capsys.readouterr().err


def test_rights_are_to_named_objects() -> None:
    named = {}
    for kind in ("ClusterRole", "Role"):
        for rule in of_kind(kind)["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            if "resourceNames" in rule:
                named[rule["resources"][0]] = set(rule["resourceNames"])
            elif "secrets" in rule["resources"]:
                assert rule["verbs"] == ["create"]
    assert named["secrets"] == {CA_SECRET, *identities(INSTALL_NAMESPACE)}
    assert named["configmaps"] == {CA_CONFIG_MAP}
    for target in trust.TARGETS:
        *_, resource, name = target.path.split("/")
        assert name in named[resource]


def test_the_service_is_the_one_that_is_called() -> None:
    service = of_kind("Service")
    pod = of_kind("Deployment")["spec"]["template"]
    assert service["metadata"]["name"] == API_SERVICE
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    for _, webhook in WEBHOOKS:
        called = webhook["clientConfig"]["service"]
        assert (called["namespace"], called["name"]) == (INSTALL_NAMESPACE, API_SERVICE)


@pytest.mark.parametrize(
    ("kind", "webhook"), WEBHOOKS, ids=lambda w: w["name"] if isinstance(w, dict) else w
)
def test_creation_fails_closed_and_all_else_open(kind: str, webhook: Object) -> None:
    """Finalizers and statuses are written by updates."""
    (rule,) = webhook["rules"]
    (operation,) = rule["operations"]
    subresource = any("/" in resource for resource in rule["resources"])
    closed = operation == "CREATE" and not subresource
    assert webhook["failurePolicy"] == ("Fail" if closed else "Ignore")
    assert operation in ("CREATE", "UPDATE")
    assert webhook["sideEffects"] in ("None", "NoneOnDryRun")
    assert webhook["admissionReviewVersions"] == ["v1"]
    assert webhook["timeoutSeconds"] <= (10 if operation == "CREATE" else 5)


def test_every_served_version_is_asked_about() -> None:
    """A version that no rule names would come in unchecked: the rules match exactly."""
    served = {
        (definition["spec"]["names"]["plural"], version["name"])
        for definition in schema.definitions()
        for version in definition["spec"]["versions"]
        if definition["spec"]["names"]["plural"] in admission.CHECKED
    }
    for operation in ("CREATE", "UPDATE"):
        asked = {
            (resource, version)
            for kind, webhook in WEBHOOKS
            if kind == "ValidatingWebhookConfiguration"
            for rule in webhook["rules"]
            if operation in rule["operations"]
            for resource in rule["resources"]
            for version in rule["apiVersions"]
        }
        assert served <= asked


def test_names_are_unique() -> None:
    names = [webhook["name"] for _, webhook in WEBHOOKS]
    assert len(set(names)) == len(names)
