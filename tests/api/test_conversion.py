"""ConversionReviews as the API server sends them: nothing is lost on the way there and back, whatever is stored."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect
from tests.crds.conftest import of_type

from qvirt_api import conversion
from qvirt_api.errors import BadReview
from qvirt_crds import shape, v1alpha1
from qvirt_crds.model import Model
from qvirt_crds.vm import VirtualMachine

Object = dict[str, Any]

SEED = Path(__file__).parents[2] / "examples" / "seed-vm.yaml"
V1, V1ALPHA1, V1ALPHA3 = (f"kubevirt.io/{version}" for version in ("v1", "v1alpha1", "v1alpha3"))
#: As an API server has it, fields among them that no struct of ours names.
METADATA = {
    "name": "x",
    "namespace": "default",
    "uid": "3d6b0c1c-7b3c-4b3c-8b3c-3d6b0c1c7b3c",
    "resourceVersion": "17",
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "annotations": {"mine": "yes"},
    "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
    "futureField": {"a": [1]},
}
SLOW = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=60
)


def stored(kind: type[Model], version: str) -> st.SearchStrategy[Object]:
    """JSON that the version's schema lets in: defaults may be written out."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    (spec,) = (field for field in info.fields if field.encode_name == "spec")
    fixed = {"apiVersion": version, "kind": "VirtualMachine", "metadata": METADATA}
    return of_type(spec.type).map(lambda made: copy.deepcopy({**fixed, "spec": made}))


def convert(held: Object, wanted: str) -> Object:
    """Through the JSON of a review."""
    request = {"uid": "u", "desiredAPIVersion": wanted, "objects": [held]}
    body = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request}
    answer = conversion.review(msgspec.json.decode(msgspec.json.encode(body)))
    response: Object = msgspec.json.decode(msgspec.json.encode(answer))["response"]
    assert response["uid"] == "u"
    assert response["result"] == {"status": "Success"}
    (converted,) = response["convertedObjects"]
    assert converted["apiVersion"] == wanted
    return dict(converted)


def meaning(held: Object, kind: type[Model]) -> object:
    """Equal for objects that differ in written-out defaults only."""
    bare = {**held, "metadata": {}}
    clean, causes = shape.check(bare, kind, {})
    assert not causes
    return msgspec.convert(clean, kind)


@SLOW
@given(stored(v1alpha1.VirtualMachine, V1ALPHA1))
def test_v1alpha1_there_and_back(old: Object) -> None:
    back = convert(convert(old, V1), V1ALPHA1)
    assert meaning(back, v1alpha1.VirtualMachine) == meaning(old, v1alpha1.VirtualMachine)
    assert back["metadata"] == old["metadata"]


@SLOW
@given(stored(VirtualMachine, V1))
def test_v1_there_and_back(new: Object) -> None:
    back = convert(convert(new, V1ALPHA1), V1)
    assert meaning(back, VirtualMachine) == meaning(new, VirtualMachine)
    assert back["metadata"] == new["metadata"]


@SLOW
@given(stored(VirtualMachine, V1))
def test_v1alpha3_is_v1(new: Object) -> None:
    assert convert(convert(new, V1ALPHA3), V1) == new
    old = convert({**new, "apiVersion": V1ALPHA3}, V1ALPHA1)
    assert old == convert(new, V1ALPHA1)


@pytest.mark.parametrize(
    "spec",
    [
        {"template": {"spec": {"domain": {"devices": {}, "launchSecurity": {"sev": {}}}}}},
        {"template": {"spec": {"domain": "none"}}, "runStrategy": "Sometimes"},
        {},
        {"template": None, "running": [1, {"a": None}]},
    ],
)
@pytest.mark.parametrize("held_version", [V1, V1ALPHA3])
def test_what_we_do_not_understand_comes_back_whole(spec: Object, held_version: str) -> None:
    held = {
        "apiVersion": held_version,
        "kind": "VirtualMachine",
        "metadata": METADATA,
        "spec": spec,
        "status": {"a": 1},
    }
    old = convert(held, V1ALPHA1)
    assert old["spec"] == {"domain": {"devices": {}}}
    assert convert(old, held_version) == held


def test_v1alpha1_that_we_do_not_understand_does_not_run() -> None:
    held = {
        "apiVersion": V1ALPHA1,
        "kind": "VirtualMachine",
        "metadata": METADATA,
        "spec": {"domain": 7},
    }
    new = convert(held, V1)
    assert new["spec"]["runStrategy"] == "Halted"
    assert convert(new, V1ALPHA1) == held


def test_the_seeds_machine() -> None:
    held = {**yaml.safe_load(SEED.read_text()), "metadata": METADATA}
    new = convert(held, V1)
    assert new["spec"]["runStrategy"] == "Once"
    assert convert(new, V1ALPHA1) == held
    assert new["metadata"].keys() == METADATA.keys()


@pytest.mark.parametrize(
    ("objects", "wanted"),
    [
        ([{"apiVersion": V1, "kind": "Pod", "metadata": {}}], V1ALPHA1),
        ([{"apiVersion": "kubevirt.io/v2", "kind": "VirtualMachine", "metadata": {}}], V1),
        (
            [{"apiVersion": V1, "kind": "VirtualMachine", "metadata": {}, "spec": {}}],
            "kubevirt.io/v2",
        ),
        (["x"], V1),
    ],
)
def test_others_are_refused(objects: list[object], wanted: str) -> None:
    request = {"uid": "u", "desiredAPIVersion": wanted, "objects": objects}
    body = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request}
    response = conversion.review(body)["response"]
    assert response["result"]["status"] == "Failure"
    assert "convertedObjects" not in response


@pytest.mark.parametrize("body", [None, [], {}, {"kind": "ConversionReview"}])
def test_no_review(body: object) -> None:
    with pytest.raises(BadReview):
        conversion.review(body)


def test_a_forged_annotation_does_no_harm() -> None:
    for text in ("", "[]", "{", '{"apiVersion":"kubevirt.io/v1"}', "[" * 100_000):
        annotations = {conversion.UNCONVERTED: text}
        held = {**yaml.safe_load(SEED.read_text()), "metadata": {"annotations": annotations}}
        assert convert(held, V1)["kind"] == "VirtualMachine"
