"""What netsetup is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from qvirt_handler.guest import decode, pods_of
from qvirt_handler.network import interface_requests, pod_link


def vmi(devices: dict[str, Any], networks: list[dict[str, Any]], **domain: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": "demo",
            "namespace": "default",
            "uid": "5d307ca9-b3ef-428c-8861-06e72d69f223",
            "resourceVersion": "7",
            "managedFields": [{"manager": "kubectl"}],
            "generation": 1,
        },
        "spec": {"domain": {"devices": devices, **domain}, "networks": networks},
        "status": {"phase": "Scheduled", "volumeStatus": [], "activePods": {"a": "n1", "b": "n2"}},
    }


POD = {"name": "default", "pod": {}}


@pytest.mark.parametrize(
    ("binding", "mode"), [("bridge", "takeover"), ("masquerade", "masquerade")]
)
def test_a_binding_is_a_mode(binding: str, mode: str) -> None:
    given = vmi({"interfaces": [{"name": "default", binding: {}, "ports": [{"port": 80}]}]}, [POD])
    (request,) = interface_requests(decode(given))
    assert (request.mode, request.link, request.queues) == (mode, "eth0", 1)
    assert [port.port for port in request.ports] == [80]


def test_without_a_word_about_networks_the_guest_is_bridged_to_the_pods() -> None:
    (request,) = interface_requests(decode(vmi({}, [])))
    assert (request.name, request.mode) == ("default", "takeover")


def test_no_network_when_none_is_wanted() -> None:
    assert interface_requests(decode(vmi({"autoattachPodInterface": False}, []))) == ()


def test_one_queue_a_vcpu_for_virtio_alone() -> None:
    for model, queues in (("virtio", 4), ("e1000", 1)):
        interface = {"name": "default", "bridge": {}, "model": model}
        devices = {"interfaces": [interface], "networkInterfaceMultiqueue": True}
        (request,) = interface_requests(decode(vmi(devices, [POD], cpu={"cores": 2, "sockets": 2})))
        assert request.queues == queues


def test_an_interface_that_was_taken_out_is_not_made() -> None:
    interface = {"name": "default", "bridge": {}, "state": "absent"}
    assert interface_requests(decode(vmi({"interfaces": [interface]}, [POD]))) == ()


def test_secondary_networks_have_hashed_names() -> None:
    networks = decode(vmi({"interfaces": []}, [{"name": "blue", "multus": {"networkName": "b"}}]))
    # SHA-256 of "blue" (checked with sha256sum).
    assert pod_link(networks.spec.networks[0]) == "pod16477688c0e"


def test_the_launcher_gets_no_more_than_it_needs() -> None:
    decoded = decode(vmi({}, []))
    assert decoded.metadata.managed_fields == ()
    assert decoded.status == {"volumeStatus": []}
    assert decoded.metadata.uid == "5d307ca9-b3ef-428c-8861-06e72d69f223"


def test_only_pods_of_this_node_are_looked_for() -> None:
    assert pods_of(vmi({}, []), "n2") == ("b",)
    assert pods_of({"metadata": {}}, "n2") == ()
