"""The CRDs in the tree are those of the structs, structural, and know every field of every example."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from qvirt_crds import schema, structural, v1alpha1
from qvirt_crds.document import parse
from qvirt_crds.quantity import parse_quantity
from qvirt_crds.vm import VirtualMachine, VirtualMachineInstance

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
CRDS = {crd["spec"]["names"]["kind"]: crd for crd in schema.definitions()}
SLOW = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None
)


def version(kind: str, name: str) -> Any:
    return next(v for v in CRDS[kind]["spec"]["versions"] if v["name"] == name)


def root(api_version: str, kind: str) -> Any:
    return version(kind, api_version.partition("/")[2])["schema"]["openAPIV3Schema"]


ROOTS = [
    pytest.param(v["schema"]["openAPIV3Schema"], id=f"{kind}-{v['name']}")
    for kind, crd in CRDS.items()
    for v in crd["spec"]["versions"]
]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "crds" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_in_the_tree_is_what_is_generated(generator: ModuleType) -> None:
    for path, content in generator.generated().items():
        assert (ROOT / path).read_text() == content, f"run python crds/generate.py for {path}"


def test_kubectl_apply_can_hold_them(generator: ModuleType) -> None:
    """Its last-applied annotation, the whole object as JSON, may have 256 KiB."""
    for crd in schema.definitions(generator.field_comments()):
        assert len(msgspec.json.encode(crd)) < 200_000


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in node:
            yield from nodes(node[name], f"{path}.{name}")


@pytest.mark.parametrize("node", ROOTS)
def test_structural(node: Any) -> None:
    """The rules of apiextensions/v1: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/."""
    known = {
        "type", "description", "properties", "items", "additionalProperties", "required", "enum", "format",
        "maxItems", "pattern", "anyOf", "default", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields",
    }  # fmt: skip
    for path, inner in nodes(node):
        assert set(inner) <= known, path
        if inner.get("x-kubernetes-int-or-string"):
            assert "type" not in inner, path
            assert inner["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
            continue
        if "type" not in inner:  # a field that the webhook refuses, whatever it holds
            assert inner["description"].startswith("Refused: "), path
            assert inner["x-kubernetes-preserve-unknown-fields"] is True, path
            continue
        assert inner["type"] in ("object", "array", "string", "integer", "boolean"), path
        assert ("items" in inner) == (inner["type"] == "array"), path
        assert not ({"properties", "additionalProperties"} <= set(inner)), path
        if inner["type"] == "object":
            assert set(inner.get("required", ())) <= set(inner.get("properties", ())), path
        assert "properties" not in inner or inner["type"] == "object", path
        assert len(set(inner.get("enum", ()))) == len(inner.get("enum", ())), path
    assert node["properties"]["metadata"] == {"type": "object"}


def errors(node: Any, data: Any, path: str = "") -> list[str]:
    """What the API server would refuse or prune."""
    match node.get("type"):
        case None:
            return [] if isinstance(data, str | int) else [f"{path}: {data!r}"]
        case "object" if isinstance(data, dict):
            if path == ".metadata":
                return []
            properties = node.get("properties", {})
            found = [f"{path}.{r}: missing" for r in node.get("required", ()) if r not in data]
            for key, value in data.items():
                inner = properties.get(key) or node.get("additionalProperties")
                if inner is not None:
                    found += errors(inner, value, f"{path}.{key}")
                elif (
                    not node.get("x-kubernetes-preserve-unknown-fields")
                    and path + key != "metadata"
                ):
                    found += [] if path == ".metadata" else [f"{path}.{key}: pruned"]
            return found
        case "array" if isinstance(data, list):
            return [e for i, d in enumerate(data) for e in errors(node["items"], d, f"{path}[{i}]")]
        case "string" if isinstance(data, str):
            return [] if data in node.get("enum", [data]) else [f"{path}: {data!r}"]
        case "integer" if isinstance(data, int) and not isinstance(data, bool):
            return []
        case "boolean" if isinstance(data, bool):
            return []
        case _:
            return [f"{path}: {data!r} for {node.get('type')}"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_fit(path: Path) -> None:
    for document in parse(path.read_text(), path.name):
        version_and_kind = (str(document.data["apiVersion"]), str(document.data["kind"]))
        if version_and_kind[1] in CRDS:
            assert errors(root(*version_and_kind), document.data) == []


def whole(machine: msgspec.Struct) -> Any:
    """As JSON, without what a schema can't say: fractions, which Kubernetes wants in quotes."""
    data = msgspec.json.decode(msgspec.json.encode(machine))

    def quoted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: quoted(inner) for key, inner in value.items() if inner is not None}
        if isinstance(value, list):
            return [quoted(inner) for inner in value]
        return str(value) if isinstance(value, float) else value

    return quoted(data)


@SLOW
@given(...)
def test_every_object_of_the_contract_fits(
    vm: VirtualMachine, vmi: VirtualMachineInstance, old: v1alpha1.VirtualMachine
) -> None:
    for machine in (vm, vmi, old):
        data = whole(machine)
        data.pop("status", None)
        data.setdefault("metadata", {})
        assert errors(root(data["apiVersion"], data["kind"]), data) == []


def test_names_columns_and_versions() -> None:
    vm, vmi = CRDS["VirtualMachine"], CRDS["VirtualMachineInstance"]
    assert vm["metadata"]["name"] == "virtualmachines.kubevirt.io"
    assert vm["spec"]["names"]["shortNames"] == ["vm", "vms"]
    assert vmi["spec"]["names"]["shortNames"] == ["vmi", "vmis"]
    assert vm["spec"]["names"]["categories"] == vmi["spec"]["names"]["categories"] == ["all"]
    columns = {
        (kind, v["name"]): [c["name"] for c in v["additionalPrinterColumns"]]
        for kind, crd in CRDS.items()
        for v in crd["spec"]["versions"]
    }
    assert columns == {
        ("VirtualMachine", "v1"): ["Age", "Status", "Ready"],
        ("VirtualMachine", "v1alpha3"): ["Age", "Status", "Ready"],
        ("VirtualMachine", "v1alpha1"): ["Phase", "Age"],
        ("VirtualMachineInstance", "v1"): ["Age", "Phase", "IP", "NodeName", "Ready", "Live-Migratable", "Paused"],
        ("VirtualMachineInstance", "v1alpha3"): ["Age", "Phase", "IP", "NodeName", "Ready", "Live-Migratable", "Paused"],
        ("VirtualMachineInstanceReplicaSet", "v1"): ["Desired", "Current", "Ready", "Age"],
        ("VirtualMachineInstanceReplicaSet", "v1alpha3"): ["Desired", "Current", "Ready", "Age"],
        ("VirtualMachineReplicaSet", "v1alpha1"): ["Desired", "Current", "Ready", "Age"],
        ("KubeVirt", "v1"): ["Age", "Phase"],
        ("KubeVirt", "v1alpha3"): ["Age", "Phase"],
    }  # fmt: skip
    stored = {
        (k, v["name"]) for k, c in CRDS.items() for v in c["spec"]["versions"] if v["storage"]
    }
    old = "VirtualMachineReplicaSet"
    assert stored == {(kind, "v1alpha1" if kind == old else "v1") for kind in CRDS}
    assert [v.get("subresources") for v in vm["spec"]["versions"]] == [{"status": {}}] * 3
    assert [v.get("subresources") for v in vmi["spec"]["versions"]] == [None, None]
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.labelSelector",
    }
    replica_sets = CRDS["VirtualMachineInstanceReplicaSet"]["spec"]["versions"]
    assert [v["subresources"] for v in replica_sets] == [{"status": {}, "scale": scale}] * 2
    (old_replica_sets,) = CRDS[old]["spec"]["versions"]
    assert old_replica_sets["subresources"] == {"status": {}, "scale": scale}
    assert vm["spec"]["conversion"]["strategy"] == "Webhook"
    assert "conversion" not in vmi["spec"]


@pytest.mark.parametrize("text", ["64M", "64Mi", "1500m", "1.5", "1e3", "-1", ".5k", "1E", "0"])
def test_the_pattern_of_quantities_takes_what_we_read(text: str) -> None:
    parse_quantity(text)
    assert re.search(structural.QUANTITY, text)


@pytest.mark.parametrize("text", ["lots", "64MB", "", "1 M", "K"])
def test_the_pattern_of_quantities_refuses_what_we_refuse(text: str) -> None:
    assert not re.search(structural.QUANTITY, text)


def test_kubectl_explain_reads_well(generator: ModuleType) -> None:
    crds = {c["spec"]["names"]["kind"]: c for c in schema.definitions(generator.field_comments())}
    node = crds["VirtualMachineInstance"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    domain = node["properties"]["spec"]["properties"]["domain"]
    assert domain["description"] == "A machine: CPU, memory, firmware, clock, features, devices."
    model = domain["properties"]["cpu"]["properties"]["model"]
    assert model["description"].startswith("host-model, host-passthrough or a name")
