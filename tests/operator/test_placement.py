"""On which nodes a guest may run."""

from __future__ import annotations

import msgspec
import pytest

from qvirt_crds.vm import VirtualMachineInstanceSpec
from qvirt_pods.placement import node_selector

ALWAYS = {"kubevirt.io/schedulable": "true", "kubernetes.io/arch": "amd64"}


def spec(**cpu: object) -> VirtualMachineInstanceSpec:
    given = {"domain": {"devices": {}, "cpu": cpu}, "nodeSelector": {"disk": "fast"}}
    return msgspec.convert(given, VirtualMachineInstanceSpec)


@pytest.mark.parametrize("model", ["", "host-model", "host-passthrough"])
def test_the_hosts_model_is_everywhere(model: str) -> None:
    found = node_selector(spec(model=model), emulated=False)
    assert found == {"disk": "fast", **ALWAYS}


def test_a_named_model_and_required_features() -> None:
    features = [
        {"name": "avx2"},
        {"name": "vmx", "policy": "require"},
        {"name": "mpx", "policy": "disable"},
        {"name": "pcid", "policy": "optional"},
    ]
    wanted = spec(model="Haswell", features=features)
    assert node_selector(wanted, emulated=False) == {
        "disk": "fast",
        **ALWAYS,
        "cpu-model.node.kubevirt.io/Haswell": "true",
        "cpu-feature.node.kubevirt.io/avx2": "true",
        "cpu-feature.node.kubevirt.io/vmx": "true",
    }
    assert node_selector(wanted, emulated=True) == {"disk": "fast", **ALWAYS}
