"""The settings of an installation: what is obeyed, what is reported, and that nothing stops it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_crds.configuration import DEFAULT, Configuration, settle
from qvirt_crds.defaults import apply_defaults
from qvirt_crds.kubevirt import KubeVirtSpec
from qvirt_crds.validate import validate_vmi
from qvirt_crds.vm import VirtualMachineInstance

Object = dict[str, Any]


def configured(**configuration: Any) -> Object:
    return {"spec": {"configuration": configuration}}


def developer(**settings: Any) -> Object:
    return configured(developerConfiguration=settings)


OBEYED = [
    (developer(useEmulation=True), {"use_emulation": True}),
    (developer(featureGates=["ImageVolume"]), {"image_volumes": True}),
    (developer(featureGates=["ImageVolume"], disabledFeatureGates=["ImageVolume"]), {}),
    (developer(featureGates=["NonRoot", "PasstBinding"]), {}),
    (developer(disabledFeatureGates=["Snapshot"]), {}),
    (developer(memoryOvercommit=150, cpuAllocationRatio=4), {"memory_overcommit": 150, "cpu_allocation_ratio": 4}),
    (configured(cpuModel="Haswell"), {"cpu_model": "Haswell"}),
    (configured(machineType="pc"), {"machine_type": "pc"}),
    (configured(architectureConfiguration={"amd64": {"machineType": "microvm"}}, machineType="pc"), {"machine_type": "microvm"}),
    (configured(network={"defaultNetworkInterface": "masquerade"}), {"default_interface": "masquerade"}),
    (configured(network={"permitBridgeInterfaceOnPodNetwork": False}), {"permit_bridge": False}),
    (configured(evictionStrategy="LiveMigrate"), {"eviction_strategy": "LiveMigrate"}),
    (configured(imagePullPolicy="Always"), {"image_pull_policy": "Always"}),
    (configured(additionalGuestMemoryOverheadRatio="1.25"), {"overhead_ratio": Fraction(5, 4)}),
    (configured(virtualMachineOptions={"disableSerialConsoleLog": {}}), {"log_serial_console": False}),
    (configured(vmRolloutStrategy="Stage"), {}),
]  # fmt: skip


@pytest.mark.parametrize(("kubevirt", "expected"), OBEYED)
def test_obeyed(kubevirt: Object, expected: Object) -> None:
    settled = settle(kubevirt)
    assert settled.ignored == ()
    assert settled.configuration == msgspec.structs.replace(DEFAULT, **expected)


def test_everybodys_object_says_nothing() -> None:
    spec: Object = {
        "certificateRotateStrategy": {},
        "configuration": {"developerConfiguration": {"featureGates": []}},
        "customizeComponents": {},
        "imagePullPolicy": "IfNotPresent",
        "workloadUpdateStrategy": {"workloadUpdateMethods": []},
        "infra": None,
    }
    assert settle({"spec": spec}).ignored == ()
    assert settle({"spec": spec}).configuration == DEFAULT
    assert settle(None).configuration == DEFAULT


REPORTED = [
    (developer(featureGates=["NonRoot", "HostDisk"]), "spec.configuration.developerConfiguration.featureGates[1]"),
    (developer(disabledFeatureGates=["NonRoot"]), "spec.configuration.developerConfiguration.disabledFeatureGates[0]"),
    (developer(logVerbosity={"virtLauncher": 8}), "spec.configuration.developerConfiguration.logVerbosity"),
    (developer(memoryOvercommit=0), "spec.configuration.developerConfiguration.memoryOvercommit"),
    (developer(cpuAllocationRatio=-1), "spec.configuration.developerConfiguration.cpuAllocationRatio"),
    (configured(migrations={"parallelMigrationsPerCluster": 3}), "spec.configuration.migrations"),
    (configured(machineType="virt"), "spec.configuration.machineType"),
    (configured(additionalGuestMemoryOverheadRatio="0.5"), "spec.configuration.additionalGuestMemoryOverheadRatio"),
    (configured(vmRolloutStrategy="LiveUpdate"), "spec.configuration.vmRolloutStrategy"),
    ({"spec": {"imagePullPolicy": "Always"}}, "spec.imagePullPolicy"),
    ({"spec": {"customizeComponents": {"patches": [{}]}}}, "spec.customizeComponents"),
]  # fmt: skip


@pytest.mark.parametrize(("kubevirt", "path"), REPORTED)
def test_reported(kubevirt: Object, path: str) -> None:
    settled = settle(kubevirt)
    assert [cause.path for cause in settled.ignored] == [path]
    assert settled.configuration == DEFAULT


def test_one_wrong_setting_costs_no_other() -> None:
    said = configured(cpuModel="Haswell", smbios={"family": "x"})
    said["spec"]["configuration"]["developerConfiguration"] = {"useEmulation": True, "x": 1}
    settled = settle(said)
    assert len(settled.ignored) == 2
    assert settled.configuration == Configuration(use_emulation=True, cpu_model="Haswell")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)  # fmt: skip


@given(...)
def test_whatever_fits_the_schema_settles(spec: KubeVirtSpec) -> None:
    found = settle({"spec": msgspec.to_builtins(spec)}).configuration
    assert found.cpu_allocation_ratio > 0
    assert found.memory_overcommit > 0


@given(JSON)
def test_no_spec_stops_us(spec: object) -> None:
    settle({"spec": spec})
    settle({"spec": {"configuration": spec}})


def instance(**spec: Any) -> VirtualMachineInstance:
    body = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "x"},
        "spec": {"domain": {"devices": {}, "memory": {"guest": "64Mi"}}, **spec},
    }
    return msgspec.convert(body, VirtualMachineInstance)


def test_defaults_are_the_clusters() -> None:
    cluster = Configuration(
        cpu_model="Haswell",
        machine_type="pc",
        default_interface="masquerade",
        eviction_strategy="External",
    )
    spec = apply_defaults(instance(), new_uuid=lambda: "u", configuration=cluster).spec
    assert spec.domain.cpu is not None
    assert spec.domain.machine is not None
    assert (spec.domain.cpu.model, spec.domain.machine.type) == ("Haswell", "pc")
    assert spec.domain.devices.interfaces[0].masquerade is not None
    assert spec.eviction_strategy == "External"
    own = apply_defaults(
        instance(evictionStrategy="None"), new_uuid=lambda: "u", configuration=cluster
    )
    assert own.spec.eviction_strategy == "None"


def test_a_cluster_may_forbid_bridging_to_the_pod_network() -> None:
    vmi = apply_defaults(instance(), new_uuid=lambda: "1c5a4bd5-0b5c-4d4e-8a1f-7c0f6b1f0a51")
    assert validate_vmi(vmi) == ()
    (cause,) = validate_vmi(vmi, configuration=Configuration(permit_bridge=False))
    assert cause.path == "spec.domain.devices.interfaces[0].name"
    assert "not enabled under kubevirt-config" in cause.message
