"""Patches add and never take away; identities stay; statuses can't be forged."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect
from tests.api.bad_manifests import instance, machine, old_machine
from tests.api.reviews import Object, apply_patch, ask
from tests.crds.conftest import of_type

from qvirt_api import admission, patching
from qvirt_crds.configuration import DEFAULT, Configuration
from qvirt_crds.defaults import apply_defaults
from qvirt_crds.vm import VirtualMachineInstance

UUID = "00000000-0000-4000-8000-000000000000"
NOW = "2026-01-01T00:00:00Z"
CONTROLLER = "system:serviceaccount:kubevirt:virt-controller"


def mutated(
    manifest: Object,
    operation: str = "CREATE",
    old: Object | None = None,
    user: str = "jane",
    configuration: Configuration = DEFAULT,
) -> Object:
    request = ask(manifest, operation, old, user)
    return apply_patch(manifest, admission.mutate(request, configuration, lambda: UUID, NOW))


def contains(whole: Any, part: Any) -> bool:
    match whole, part:
        case dict(), dict():
            return all(key in whole and contains(whole[key], value) for key, value in part.items())
        case list(), list():
            return len(whole) >= len(part) and all(map(contains, whole, part))
        case _:
            return bool(whole == part)


def instances() -> st.SearchStrategy[Object]:
    info = inspect.type_info(VirtualMachineInstance)
    assert isinstance(info, inspect.StructType)
    (spec,) = (field for field in info.fields if field.encode_name == "spec")
    fixed = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance"}
    return of_type(spec.type).map(lambda made: {**fixed, "metadata": {"name": "x"}, "spec": made})


@settings(max_examples=80)
@given(instances())
def test_an_instance_means_what_defaulting_makes_of_it(manifest: Object) -> None:
    after = mutated(manifest)
    wanted = apply_defaults(
        msgspec.convert(manifest, VirtualMachineInstance), new_uuid=lambda: UUID
    )
    assert msgspec.convert(after, VirtualMachineInstance).spec == wanted.spec
    assert mutated(after) == after


JSON = st.recursive(
    st.integers(0, 3) | st.sampled_from(["a", "b/c", "~"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b/c", "~d", ""]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from("ab"), JSON), st.dictionaries(st.sampled_from("ab"), JSON))
def test_a_patch_adds(before: Object, after: Object) -> None:
    patch = patching.additions(before, after, "/x")
    encoded = {"allowed": True, "patchType": "JSONPatch"}
    if not patch:
        assert contains(before, {k: v for k, v in after.items() if k in before})
        return
    encoded["patch"] = b64encode(msgspec.json.encode(patch)).decode()
    changed = apply_patch({"x": before}, {"response": encoded})["x"]
    assert contains(changed, after)
    assert all(step["op"] in ("add", "replace") for step in patch)


def test_what_the_user_wrote_stays() -> None:
    manifest = instance(
        lambda spec: spec["domain"].update(cpu={"cores": 1, "dedicatedCpuPlacement": False})
    )
    manifest["spec"]["domain"]["resources"] = {}
    after = mutated(manifest)
    assert after["spec"]["domain"]["cpu"]["dedicatedCpuPlacement"] is False
    assert contains(
        after["spec"]["domain"]["devices"]["disks"], manifest["spec"]["domain"]["devices"]["disks"]
    )


def test_what_can_not_be_read_is_left_to_validation() -> None:
    manifest = instance(lambda spec: spec.update(domain={"devices": {"disks": "none"}}))
    assert mutated(manifest)["spec"] == manifest["spec"]


def test_the_clusters_settings() -> None:
    settings = Configuration(machine_type="pc-q35-7.2", cpu_model="Haswell")
    after = mutated(instance(), configuration=settings)["spec"]["domain"]
    assert (after["machine"]["type"], after["cpu"]["model"]) == ("pc-q35-7.2", "Haswell")
    vm = mutated(machine(), configuration=settings)["spec"]["template"]["spec"]["domain"]
    assert vm["machine"]["type"] == "pc-q35-7.2"


@pytest.mark.parametrize("user", ["jane", CONTROLLER])
def test_a_new_instance_has_no_status_of_its_users(user: str) -> None:
    manifest = {**instance(), "status": {"phase": "Running"}}
    status = mutated(manifest, user=user)["status"]
    assert status["phase"] == ("Pending" if user == "jane" else "Running")
    assert status["phaseTransitionTimestamps"] == [
        {"phase": "Pending", "phaseTransitionTimestamp": NOW}
    ]
    assert status["memory"]["guestAtBoot"] == status["memory"]["guestRequested"]
    (ready,) = status["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "PodNotExists")


@pytest.mark.parametrize("old_status", [None, {"phase": "Pending"}])
@pytest.mark.parametrize("new_status", [None, {"phase": "Failed"}])
def test_a_status_is_put_back(old_status: Object | None, new_status: Object | None) -> None:
    def with_status(status: Object | None) -> Object:
        return {**instance(), **({} if status is None else {"status": status})}

    old, new = with_status(old_status), with_status(new_status)
    assert mutated(new, "UPDATE", old).get("status") == old_status
    assert mutated(new, "UPDATE", old, CONTROLLER).get("status") == new_status


def test_v1alpha1_is_completed_in_its_own_words() -> None:
    domain = mutated(old_machine())["spec"]["domain"]
    assert domain["firmware"] == {"uuid": UUID}
    assert domain["machine"] == {"type": "q35"}


def test_a_given_identity_is_kept() -> None:
    mine = {"uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223"}
    manifest = machine(lambda spec: spec["domain"].update(firmware=mine))
    firmware = mutated(manifest)["spec"]["template"]["spec"]["domain"]["firmware"]
    assert firmware == {**mine, "serial": UUID}
    again = mutated(machine(), "UPDATE", manifest)
    assert again["spec"]["template"]["spec"]["domain"]["firmware"] == mine
    assert mutated(machine(), "UPDATE", machine()) == machine()
