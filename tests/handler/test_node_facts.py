"""Labels of a node and the verdict on its KVM, by the report of the launcher's image."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_crds.node_report import KVM_DEVICE, NodeReport, kvm_identity
from qvirt_handler import node_facts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of a node with a device of sorts."""
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev/kvm")
    return tmp_path


def write(root: Path, **changes: object) -> str:
    identity = kvm_identity(f"{root}{KVM_DEVICE}")
    report = NodeReport(kvm_identity=identity, kvm_works=True)
    path = root / "node.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(report, **changes)))
    return str(path)


def test_kvm_that_works(root: Path) -> None:
    assert node_facts.kvm_trouble(write(root), str(root)) == ""


def test_kvm_that_does_not(root: Path) -> None:
    path = write(root, kvm_works=False, kvm_message="It gave up.")
    assert node_facts.kvm_trouble(path, str(root)) == "It gave up."


def test_kvm_that_went_away_and_came_back_as_another(root: Path) -> None:
    path = write(root)
    device = root / "dev/kvm"
    device.rename(root / "dev/old")
    assert node_facts.kvm_trouble(path, str(root)) == "/dev/kvm is gone"
    os.mkfifo(device)
    assert "delete this node's virt-handler pod" in node_facts.kvm_trouble(path, str(root))


@pytest.mark.parametrize("text", [None, "", "{", '{"kvmWorks": true}'])
def test_no_report_no_kvm(root: Path, text: str | None) -> None:
    path = root / "node.json"
    if text is not None:
        path.write_text(text)
    assert node_facts.read(str(path)) is None
    assert str(path) in node_facts.kvm_trouble(str(path), str(root))
    assert node_facts.labels(None) == {}


def test_labels() -> None:
    report = NodeReport(
        kvm_identity="",
        kvm_works=True,
        cpu_models=("Nehalem", "-odd-"),
        cpu_features=("sse4.2", "lahf_lm"),
        cpu_vendor="AuthenticAMD",
    )
    assert node_facts.labels(report) == {
        "cpu-model.node.kubevirt.io/Nehalem": "true",
        "cpu-feature.node.kubevirt.io/sse4.2": "true",
        "cpu-feature.node.kubevirt.io/lahf_lm": "true",
        "cpu-vendor.node.kubevirt.io/AMD": "true",
    }


names = st.sampled_from(
    [
        "cpu-model.node.kubevirt.io/a",
        "cpu-feature.node.kubevirt.io/b",
        "cpu-vendor.node.kubevirt.io/c",
    ]
)
others = st.sampled_from(["kubernetes.io/arch", "cpu-model.example.org/a"])
values = st.sampled_from(["true", "false"])


@given(
    have=st.dictionaries(st.one_of(names, others), values),
    want=st.dictionaries(names, st.just("true")),
)
def test_changes_lead_to_what_is_wanted(have: dict[str, str], want: dict[str, str]) -> None:
    patch = node_facts.changes(have, want)
    merged: dict[str, str | None] = {**have, **patch}
    after = {name: value for name, value in merged.items() if value is not None}
    kept = {name: value for name, value in have.items() if "node.kubevirt.io" not in name}
    assert after == {**kept, **want}
    assert not node_facts.changes({k: v for k, v in after.items() if v}, want)
