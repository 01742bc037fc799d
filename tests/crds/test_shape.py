"""What the shape check passes converts; and the table of fields that we lack names none that we have."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from qvirt_crds import shape, unimplemented, v1alpha1
from qvirt_crds.fieldpath import join, parent, without_indices
from qvirt_crds.model import Model
from qvirt_crds.vm import VirtualMachine, VirtualMachineInstance

SLOW = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None
)
ODD = st.sampled_from(
    [None, True, 0, -1, 2**63, 1.0, 1.5, float("nan"), "", "x", "a\0b", "\ud800", [], [None], {}, {"name": "x"}, {"\0": 1}]
)  # fmt: skip


def places(data: Any) -> list[tuple[Any, Any]]:
    """Each (container, key) of a JSON document."""
    items = list(data.items()) if isinstance(data, dict) else list(enumerate(data))
    inner = [
        place for _, value in items if isinstance(value, dict | list) for place in places(value)
    ]
    return [(data, key) for key, _ in items] + inner


@SLOW
@given(
    st.from_type(VirtualMachine)
    | st.from_type(VirtualMachineInstance)
    | st.from_type(v1alpha1.VirtualMachine),
    st.data(),
)
def test_what_passes_converts(machine: Model, draw: st.DataObject) -> None:
    kind = type(machine)
    data = msgspec.json.decode(msgspec.json.encode(machine))
    assert shape.check(data, kind, {})[1] == ()
    for _ in range(draw.draw(st.integers(1, 3))):
        container, key = draw.draw(st.sampled_from(places(data)))
        container[key] = draw.draw(ODD)
    clean, causes = shape.check(data, kind, {})
    if not causes:
        encoded = msgspec.json.encode(msgspec.convert(clean, kind))
        assert msgspec.json.decode(encoded, type=kind) == msgspec.convert(clean, kind)
    assert all(cause.path for cause in causes)


def paths(info: inspect.Type, path: str) -> list[str]:
    match info:
        case inspect.StructType(fields=fields):
            return [
                p
                for f in fields
                for p in [f"{path}.{f.encode_name}", *paths(f.type, f"{path}.{f.encode_name}")]
            ]
        case inspect.UnionType(types=types):
            return [p for t in types for p in paths(t, path)]
        case inspect.VarTupleType(item_type=item):
            return paths(item, f"{path}[]")
        case _:
            return []


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (VirtualMachine, unimplemented.of_machine()),
        (VirtualMachineInstance, unimplemented.of_instance()),
        (v1alpha1.VirtualMachine, unimplemented.V1_NAMES),
    ],
)
def test_no_field_is_both_there_and_missing(kind: type[Model], table: dict[str, str]) -> None:
    ours = {p.removeprefix(".") for p in paths(inspect.type_info(kind), "")}
    assert ours & set(table) == set()
    # A typing error in the table would never be found by a user: what is around each field is ours.
    for path in table:
        around = parent(path).removesuffix("[]")
        assert around in ours, path


def test_paths() -> None:
    assert join("", "spec") == "spec"
    assert join(join("spec", "volumes"), 3) == "spec.volumes[3]"
    assert (
        join("metadata.labels", "app.kubernetes.io/name")
        == "metadata.labels[app.kubernetes.io/name]"
    )
    assert without_indices("a[0].b[12].c") == "a[].b[].c"
    assert parent("a.b[0].c") == "a.b[0]"
    assert parent("a.b[0]") == "a.b"
    assert parent("a") == ""
