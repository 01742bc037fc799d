"""Who may change what, and what is let pass though it could not be created."""

from __future__ import annotations

import copy

import pytest
from tests.api.bad_manifests import BAD, instance, machine
from tests.api.reviews import Object, ask

from qvirt_api import admission, review
from qvirt_api.errors import BadReview
from qvirt_crds.configuration import DEFAULT, Configuration
from qvirt_crds.errors import Cause

OURS = "system:serviceaccount:kubevirt:virt-"
_VMS = [bad for bad in BAD if bad.path and bad.manifest["kind"] == "VirtualMachine"]


def answer(
    manifest: Object,
    operation: str = "CREATE",
    old: Object | None = None,
    user: str = "jane",
    **extra: list[str],
) -> Object:
    request = ask(manifest, operation, old, user, **extra)
    response: Object = admission.validate(request, DEFAULT)["response"]
    assert response["uid"] == request.uid
    return response


def changed(manifest: Object, **metadata: object) -> Object:
    return {**manifest, "metadata": {**manifest["metadata"], **metadata}}


@pytest.mark.parametrize("bad", _VMS, ids=lambda bad: bad.name)
def test_what_is_stored_may_keep_its_spec_and_go(bad: object) -> None:
    old = changed(_VMS[0].manifest, finalizers=["f"])
    assert answer(changed(old, finalizers=[]), "UPDATE", old)["allowed"]
    deleted = changed(bad.manifest, deletionTimestamp="2026-01-01T00:00:00Z")  # type: ignore[attr-defined]
    assert answer(deleted, "UPDATE", machine())["allowed"]
    assert not answer(bad.manifest, "UPDATE", machine())["allowed"]  # type: ignore[attr-defined]


def test_spec_and_labels_of_instances() -> None:
    old = instance()
    new = copy.deepcopy(old)
    new["spec"]["terminationGracePeriodSeconds"] = 1
    refused = answer(new, "UPDATE", old)
    assert refused["status"]["message"] == "spec: update of VMI object is restricted"
    assert answer(new, "UPDATE", old, f"{OURS}controller")["allowed"]
    labelled = changed(old, labels={"kubevirt.io/nodeName": "n"})
    assert not answer(labelled, "UPDATE", old)["allowed"]
    assert not answer(old, "UPDATE", labelled)["allowed"]
    assert answer(labelled, "UPDATE", old, f"{OURS}controller")["allowed"]
    assert answer(changed(old, labels={"a": "b"}), "UPDATE", old)["allowed"]
    # Deleting is nobody's spec: the garbage collector and people take finalizers away.
    assert answer(changed(old, finalizers=[]), "UPDATE", changed(old, finalizers=["f"]))["allowed"]
    assert answer(labelled, user=f"{OURS}controller")["allowed"]


def test_a_handler_stays_on_its_node() -> None:
    node = {"authentication.kubernetes.io/node-name": ["here"]}
    mine, other = ({**instance(), "status": {"nodeName": n}} for n in ("here", "there"))
    assert answer(mine, "UPDATE", mine, f"{OURS}handler", **node)["allowed"]
    refused = answer(other, "UPDATE", other, f"{OURS}handler", **node)
    assert "Node restriction" in refused["status"]["message"]
    # API servers that do not tell the node.
    assert answer(other, "UPDATE", other, f"{OURS}handler")["allowed"]


def test_running_is_warned_about() -> None:
    warned = answer(machine(running=True))
    assert warned["allowed"]
    assert warned["warnings"] == [
        "spec.running is deprecated, please use spec.runStrategy instead."
    ]
    assert "warnings" not in answer(machine())


def test_the_cluster_may_refuse_more() -> None:
    bridged = instance(
        lambda s: s["domain"]["devices"].update(interfaces=[{"name": "default", "bridge": {}}])
    )
    request = ask(bridged)
    assert admission.validate(request, DEFAULT)["response"]["allowed"]
    strict = admission.validate(request, Configuration(permit_bridge=False))["response"]
    assert "Bridge on pod network configuration is not enabled" in strict["status"]["message"]


def test_at_most_ten_are_told() -> None:
    causes = tuple(Cause(path=f"spec.a[{n}]", message="no") for n in range(13))
    status = review.refused(ask(machine()), causes)["response"]["status"]
    assert status["message"].startswith("spec.a[0]: no, spec.a[1]: no, ")
    assert status["message"].endswith("spec.a[9]: no, and 3 more validation errors")
    assert len(status["details"]["causes"]) == 13


def test_others_and_their_subresources_are_let_pass() -> None:
    assert answer({"apiVersion": "v1", "kind": "Pod", "metadata": {}})["allowed"]
    assert answer(machine(), "DELETE")["allowed"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}',
        b"[" * 100_000,
    ],
)
def test_no_review(body: bytes) -> None:
    with pytest.raises(BadReview):
        review.read(body)


def test_nesting_without_end_is_refused() -> None:
    deep: object = {}
    for _ in range(900):
        deep = {"a": deep}
    manifest = machine(lambda spec: spec.update(affinity=deep))
    assert "nested too deeply" in answer(manifest)["status"]["message"]
