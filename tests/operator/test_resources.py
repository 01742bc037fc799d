"""What a pod asks for: KubeVirt's rules for requests and limits, and the QoS class that the user meant."""

from __future__ import annotations

from fractions import Fraction

import pytest

from qvirt_crds.configuration import Configuration
from qvirt_crds.defaults import apply_defaults
from qvirt_crds.load import load_manifests
from qvirt_crds.vm import VirtualMachineInstanceSpec
from qvirt_launcher.board import TRANSLATED_MIB
from qvirt_pods.resources import holder_requirements, overhead, requirements
from qvirt_pods.settings import Settings

MIB = 2**20
KVM = Settings(launcher_image="l")
EMULATED = KVM.configured(Configuration(use_emulation=True))


def spec(domain: str) -> VirtualMachineInstanceSpec:
    text = f"""
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {{name: x}}
spec: {{domain: {{devices: {{}}, {domain}}}}}
"""
    vmi = load_manifests(text, "x.yaml").instances[0]
    return apply_defaults(vmi, new_uuid=lambda: "0").spec


def test_memory_grows_by_the_overhead() -> None:
    found = spec("memory: {guest: 64Mi}")
    assert overhead(found, EMULATED) > 0
    wanted = requirements(found, EMULATED)
    assert wanted == {
        "requests": {"cpu": "100m", "memory": str(64 * MIB + overhead(found, EMULATED))}
    }


def test_a_request_wins_over_the_guests_memory() -> None:
    found = spec("memory: {guest: 64Mi}, resources: {requests: {memory: 128Mi}}")
    assert requirements(found, EMULATED)["requests"]["memory"] == str(
        128 * MIB + overhead(found, EMULATED)
    )


def test_overcommitted_overhead_is_not_requested_but_allowed() -> None:
    found = spec(
        "resources: {overcommitGuestOverhead: true, requests: {memory: 64Mi}, limits: {memory: 64Mi}}"
    )
    wanted = requirements(found, EMULATED)
    assert wanted["requests"]["memory"] == str(64 * MIB)
    assert wanted["limits"]["memory"] == str(64 * MIB + overhead(found, EMULATED))


@pytest.mark.parametrize(("cpu", "share"), [("{cores: 2, sockets: 2}", "400m"), ("{}", "100m")])
def test_a_tenth_of_a_cpu_for_each_vcpu(cpu: str, share: str) -> None:
    found = spec(f"memory: {{guest: 64Mi}}, cpu: {cpu}")
    assert requirements(found, EMULATED)["requests"]["cpu"] == share


def test_more_vcpus_cost_more() -> None:
    one, four = spec("memory: {guest: 64Mi}"), spec("memory: {guest: 64Mi}, cpu: {cores: 4}")
    assert overhead(four, KVM) > overhead(one, KVM)


def test_kvm_is_a_limit() -> None:
    assert requirements(spec("memory: {guest: 64Mi}"), KVM)["limits"] == {
        "devices.kubevirt.io/kvm": "1"
    }


def test_guaranteed_stays_guaranteed_with_its_helpers() -> None:
    same = "{cpu: 1, memory: 64Mi}"
    wanted = requirements(spec(f"resources: {{requests: {same}, limits: {same}}}"), KVM)
    helper = holder_requirements(wanted)
    for container in (wanted, helper):
        for key in ("cpu", "memory"):
            assert container["requests"][key] == container["limits"][key]


def test_burstable_helpers_ask_for_next_to_nothing() -> None:
    helper = holder_requirements(requirements(spec("memory: {guest: 64Mi}"), KVM))
    assert helper["requests"] == {"cpu": "1m", "memory": "1M"}


def test_huge_pages_hold_the_guest_and_memory_the_rest() -> None:
    found = spec("memory: {guest: 64Mi, hugepages: {pageSize: 2Mi}}")
    wanted = requirements(found, EMULATED)
    assert wanted["requests"]["hugepages-2Mi"] == wanted["limits"]["hugepages-2Mi"] == str(64 * MIB)
    assert wanted["requests"]["memory"] == str(overhead(found, EMULATED))


def test_the_clusters_settings() -> None:
    found = spec("memory: {guest: 300Mi}, cpu: {cores: 3}")
    settings = KVM.configured(
        Configuration(memory_overcommit=150, cpu_allocation_ratio=5, overhead_ratio=Fraction(3, 2))
    )
    assert overhead(found, settings) == overhead(found, KVM) * 3 // 2
    requests = requirements(found, settings)["requests"]
    assert requests["cpu"] == "600m"
    assert requests["memory"] == str(200 * MIB + overhead(found, settings))


def test_the_aim_for_a_small_guest() -> None:
    """96 MiB for one vCPU and 1 GiB, with a display; emulation comes on top, and has a bound."""
    found = spec("memory: {guest: 1Gi}")
    assert overhead(found, KVM) <= 96 * MIB
    assert overhead(found, EMULATED) - overhead(found, KVM) > TRANSLATED_MIB * MIB
