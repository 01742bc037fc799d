"""`qvirt pod`: pods that need no control plane, and refusals of what would need one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.edge.conftest import ROOT, qvirt_pod, run
from tests.operator.test_pods import check_names, check_restricted, minimal

from qvirt_crds import pod_layout
from qvirt_crds.errors import SpecError
from qvirt_crds.report import Attachment
from qvirt_crds.sync import SyncArguments
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.cli.pod import _published
from qvirt_pods import edge
from qvirt_pods.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Golden

SETTINGS = Settings(launcher_image="localhost/qvirt/launcher:latest", use_emulation=True)


def pod_of(vmi: VirtualMachineInstance, *published: str, **more: Any) -> dict[str, Any]:
    ports = tuple(map(_published, published))
    attachment = Attachment(
        interface="default",
        backend="user",
        mac="02:00:00:00:00:01",
        publish=edge.forwards(vmi, ports),
    )
    sync = SyncArguments(vmi=vmi, attachments=(attachment,))
    return edge.edge_pod(edge.Order(sync=sync, settings=SETTINGS, published=ports, **more))


def compute(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


def the_vm(pod: dict[str, Any]) -> dict[str, Any]:
    """As the launcher reads it."""
    (variable,) = compute(pod)["env"]
    assert variable["name"] == pod_layout.VM_VARIABLE
    found: dict[str, Any] = json.loads(variable["value"])
    return found


def test_the_seeds_pod(golden: Golden) -> None:
    text = qvirt_pod(ROOT / "examples/seed-vm.yaml", "--publish", "8080:80", "--publish", "2222:22")
    golden.check("edge/seed-vm.yaml", text.replace(f"{ROOT}/", ""))
    assert text == qvirt_pod(
        ROOT / "examples/seed-vm.yaml", "--publish", "8080:80", "--publish", "2222:22"
    ), "the same VM is the same machine each time"


def test_without_ports_of_the_node_it_is_restricted_and_needs_nobody() -> None:
    pod = pod_of(minimal())
    check_restricted(pod)
    check_names(pod["spec"])
    kinds = {kind for volume in pod["spec"]["volumes"] for kind in volume if kind != "name"}
    assert kinds == {"emptyDir"}
    assert not {"ownerReferences", "generateName"} & set(pod["metadata"])
    assert not {"readinessGates", "nodeSelector", "imagePullSecrets"} & set(pod["spec"])
    # Neither may the pod's name be another each time, nor two VMs share podman's volumes.
    assert pod["metadata"]["name"] == "x"
    assert all(volume["name"].startswith("x-") for volume in pod["spec"]["volumes"])


PORTS = """livenessProbe: {httpGet: {path: /, port: web}}
  readinessProbe: {tcpSocket: {port: 22}}
"""


def with_ports() -> VirtualMachineInstance:
    text = minimal(PORTS)
    from msgspec.structs import replace

    from qvirt_crds.devices import Port

    (interface,) = text.spec.domain.devices.interfaces
    ports = (Port(port=80, name="web"), Port(port=8080), Port(port=53, protocol="UDP"))
    devices = replace(text.spec.domain.devices, interfaces=(replace(interface, ports=ports),))
    return replace(text, spec=replace(text.spec, domain=replace(text.spec.domain, devices=devices)))


def test_ports_of_spec_probes_and_options_reach_the_guest() -> None:
    pod = pod_of(with_ports(), "443:443", "127.0.0.1:5353:53/udp")
    publish = the_vm(pod)["attachments"][0]["publish"]
    at = {(p.get("protocol", "tcp"), p["guestPort"]): p["hostPort"] for p in publish}
    # 8080 is the guest's own, so that 80 has to go one further.
    assert at == {
        ("tcp", 80): 8081,
        ("tcp", 8080): 8080,
        ("udp", 53): 8053,
        ("tcp", 443): 8443,
        ("tcp", 22): 8022,
    }
    assert compute(pod)["ports"] == [
        {"containerPort": 8443, "hostPort": 443, "protocol": "TCP"},
        {"containerPort": 8053, "hostPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1"},
    ]
    assert compute(pod)["livenessProbe"]["httpGet"] == {"path": "/", "port": 8081}
    assert compute(pod)["readinessProbe"]["tcpSocket"] == {"port": 8022}


@given(st.sets(st.integers(1, 65535), max_size=20))
def test_every_port_has_one_of_its_own_that_an_ordinary_user_may_have(ports: set[int]) -> None:
    published = [edge.Published(host_port=p, guest_port=p) for p in ports]
    found = edge.forwards(minimal(), published)
    assert {port.guest_port for port in found} == ports
    here = [port.host_port for port in found]
    assert len(set(here)) == len(here)
    assert all(1024 <= port < 65536 for port in here)
    assert all(p.host_port == p.guest_port for p in found if p.guest_port >= 1024)


def test_run_strategies_become_restart_policies() -> None:
    assert edge.restart_policy(None) == "Never"
    assert edge.restart_policy("Once") == "Never"
    disk = '{name: root, containerDisk: {image: "a:1"}}'
    for policy in ("OnFailure", "Always"):
        pod = pod_of(minimal(volumes=disk), restart=policy)
        # Whether a guest that has shut down is to run again, the launcher says: by its exit code.
        assert pod["spec"]["restartPolicy"] == "OnFailure"
        assert compute(pod)["command"][-2:] == ["--restart-policy", policy]
        assert pod["spec"]["containers"][1]["command"] == pod_layout.holder_command(
            "root", stays=True
        )


def test_claims_are_files_and_folders_of_the_node() -> None:
    volumes = (
        "{name: a, persistentVolumeClaim: {claimName: one}}, {name: b, ephemeral: "
        "{persistentVolumeClaim: {claimName: two, readOnly: true}}}"
    )
    claims = {
        "one": edge.Claim(path="/srv/one.img"),
        "two": edge.Claim(path="/srv/two", directory=True),
    }
    pod = pod_of(minimal(volumes=volumes), claims=claims)
    found = {volume["name"]: volume.get("hostPath") for volume in pod["spec"]["volumes"]}
    assert found["x-a"] == {"path": "/srv/one.img", "type": "File"}
    assert found["x-b"] == {"path": "/srv/two", "type": "Directory"}
    mounts = {mount["name"]: mount for mount in compute(pod)["volumeMounts"]}
    assert mounts["x-a"]["mountPath"] == pod_layout.claim_dir("a") + "/disk.img"
    assert mounts["x-b"]["mountPath"] == pod_layout.claim_dir("b")
    assert mounts["x-b"]["readOnly"] is True


@given(st.text())
def test_the_kubelet_expands_nothing_in_the_vm(text: str) -> None:
    from msgspec.structs import replace

    vmi = minimal()
    vmi = replace(vmi, metadata=replace(vmi.metadata, annotations={"a": text + "$(HOME)$"}))
    written = edge.environment(SyncArguments(vmi=vmi))
    assert "$" not in written
    assert json.loads(written)["vmi"]["metadata"]["annotations"] == {"a": text + "$(HOME)$"}


@pytest.mark.parametrize(
    ("spec", "volumes", "path"),
    [
        ("", "{name: a, persistentVolumeClaim: {claimName: one}}", "spec.volumes[0].persistentVolumeClaim"),
        ("accessCredentials: [{userPassword: {source: {secret: {secretName: s}}, propagationMethod: {qemuGuestAgent: {}}}}]", "", "spec.accessCredentials"),
    ],
)  # fmt: skip
def test_what_needs_a_control_plane_is_refused(spec: str, volumes: str, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        pod_of(minimal(spec, volumes))
    assert [cause.path for cause in caught.value.causes] == [path]


def test_secrets_become_part_of_the_pod(tmp_path: Path) -> None:
    pod = yaml.safe_load(qvirt_pod(ROOT / "examples/cloud-init-secret.yaml"))
    volumes = the_vm(pod)["vmi"]["spec"]["volumes"]
    (seed,) = [v for v in volumes if "cloudInitNoCloud" in v]
    assert seed["cloudInitNoCloud"]["userDataBase64"]
    assert "secretRef" not in seed["cloudInitNoCloud"]
    assert not any("secret" in volume for volume in pod["spec"]["volumes"])


def test_help_is_there() -> None:
    import sys

    said = run(sys.executable, "-P", "-m", "qvirt_launcher.cli.main", "pod", "--help")
    assert "podman kube play" in said
