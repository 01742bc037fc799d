"""Launcher pods: golden for every example, PodSecurity `restricted` for every spec, names without collisions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from qvirt_crds import pod_layout
from qvirt_crds.defaults import apply_defaults
from qvirt_crds.load import load_manifests
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_pods.pods import instance_id, launcher_pod, pod_name
from qvirt_pods.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Golden

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
SIDECARS = Settings(launcher_image="localhost/qvirt/launcher:test")
IMAGE_VOLUMES = Settings(launcher_image="localhost/qvirt/launcher:test", image_volumes=True)
UUID = "00000000-0000-4000-8000-000000000000"


def instance(text: str, **metadata: str) -> VirtualMachineInstance:
    vmi = apply_defaults(load_manifests(text, "x.yaml").instances[0], new_uuid=lambda: UUID)
    given = msgspec.structs.replace(
        vmi.metadata, namespace=vmi.metadata.namespace or "default", uid=UUID, **metadata
    )
    return msgspec.structs.replace(vmi, metadata=given)


def minimal(spec: str = "", volumes: str = "") -> VirtualMachineInstance:
    text = f"""
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {{name: x}}
spec:
  domain:
    devices: {{}}
    memory: {{guest: 64Mi}}
  {spec}
  volumes: [{volumes}]
"""
    return instance(text)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_golden(path: Path, golden: Golden) -> None:
    pod = launcher_pod(instance(path.read_text()), SIDECARS)
    golden.check(
        f"pods/{path.stem}.json",
        msgspec.json.format(msgspec.json.encode(pod), indent=1).decode() + "\n",
    )


def check_restricted(pod: dict[str, Any]) -> None:
    """Every control of https://kubernetes.io/docs/concepts/security/pod-security-standards/, Baseline and Restricted."""
    spec = pod["spec"]
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        assert not spec.get(key)
    for annotation in pod["metadata"]["annotations"]:
        assert not annotation.startswith("container.apparmor.security.beta.kubernetes.io/")
    allowed = {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
    }  # fmt: skip
    for volume in spec["volumes"]:
        assert set(volume) - {"name"} <= allowed
    around = spec["securityContext"]
    assert not {"sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile"} & set(around)
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        context = container["securityContext"]
        assert not {"seLinuxOptions", "windowsOptions", "procMount", "appArmorProfile"} & set(
            context
        )
        assert context.get("privileged") is not True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context.get("runAsNonRoot", around.get("runAsNonRoot")) is True
        assert context.get("runAsUser", around.get("runAsUser")) != 0
        profile = context.get("seccompProfile", around.get("seccompProfile", {}))
        assert profile.get("type") in ("RuntimeDefault", "Localhost")
        assert not any("hostPort" in port for port in container.get("ports", []))
        for probe in ("livenessProbe", "readinessProbe"):
            assert "host" not in container.get(probe, {}).get("httpGet", {})
    # Beyond the standard: DESIGN.
    assert spec["automountServiceAccountToken"] is False
    assert all(c["securityContext"]["readOnlyRootFilesystem"] for c in spec["containers"])


@pytest.mark.parametrize("settings", [SIDECARS, IMAGE_VOLUMES], ids=["sidecars", "image-volumes"])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_restricted(path: Path, settings: Settings) -> None:
    check_restricted(launcher_pod(instance(path.read_text()), settings))


@pytest.mark.parametrize("settings", [SIDECARS, IMAGE_VOLUMES], ids=["sidecars", "image-volumes"])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_mount_has_its_volume_and_names_are_unique(path: Path, settings: Settings) -> None:
    check_names(launcher_pod(instance(path.read_text()), settings)["spec"])


def check_names(spec: dict[str, Any]) -> None:
    volumes = [volume["name"] for volume in spec["volumes"]]
    containers = [*spec["containers"], *spec.get("initContainers", [])]
    names = [container["name"] for container in containers]
    assert len(set(volumes)) == len(volumes)
    assert len(set(names)) == len(names)
    for name in (*names, *volumes):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)
    used = [
        m for c in containers for m in (*c.get("volumeMounts", []), *c.get("volumeDevices", []))
    ]
    assert {mount["name"] for mount in used} == set(volumes)
    paths = [m["mountPath"] for m in containers[0]["volumeMounts"]]
    assert len(set(paths)) == len(paths)


def test_volumes_of_the_spec_may_have_the_names_of_ours() -> None:
    taken = ("run", "tmp", "holder", "kernel-boot", "a-udata", "console")
    disks = ", ".join(
        f"{{name: {name}, persistentVolumeClaim: {{claimName: c}}}}" for name in taken
    )
    seed = "{name: a, cloudInitNoCloud: {secretRef: {name: s}, networkData: n}}"
    image = f"{{name: {'v' * 63}, containerDisk: {{image: x}}}}"
    vmi = minimal(volumes=f"{disks}, {seed}, {image}")
    for settings in (SIDECARS, IMAGE_VOLUMES):
        check_names(launcher_pod(vmi, settings)["spec"])


def test_a_block_claim_is_a_device() -> None:
    volumes = "{name: a, persistentVolumeClaim: {claimName: raw}}, {name: b, ephemeral: {persistentVolumeClaim: {claimName: fs}}}"
    compute = launcher_pod(minimal(volumes=volumes), SIDECARS, block={"raw"})["spec"]["containers"][
        0
    ]
    assert compute["volumeDevices"] == [{"name": "a", "devicePath": "/dev/a"}]
    paths = [mount["mountPath"] for mount in compute["volumeMounts"]]
    assert pod_layout.claim_dir("b") in paths
    assert pod_layout.claim_dir("a") not in paths


def test_holders_are_found_by_their_command_line() -> None:
    vmi = minimal(volumes="{name: root-disk, containerDisk: {image: x}}")
    spec = launcher_pod(vmi, SIDECARS)["spec"]
    assert spec["shareProcessNamespace"] is True
    held = [pod_layout.held_volume(tuple(c.get("command", ()))) for c in spec["containers"]]
    assert held == [None, "root-disk", None]


def test_no_sidecar_where_the_cluster_has_image_volumes() -> None:
    spec = launcher_pod(minimal(volumes="{name: a, containerDisk: {image: x}}"), IMAGE_VOLUMES)[
        "spec"
    ]
    assert [c["name"] for c in spec["containers"]] == ["compute", "guest-console-log"]
    assert "shareProcessNamespace" not in spec
    assert {"name": "a", "image": {"reference": "x", "pullPolicy": "Always"}} in spec["volumes"]


@pytest.mark.parametrize(
    ("cluster", "devices", "logged"),
    [
        (True, "{}", True),
        (True, "{logSerialConsole: true}", True),
        (True, "{logSerialConsole: false}", False),
        (True, "{autoattachSerialConsole: false, logSerialConsole: true}", False),
        (False, "{}", False),
        (False, "{logSerialConsole: true}", True),
    ],
)
def test_the_serial_console_is_logged_unless_somebody_says_no(
    cluster: bool, devices: str, logged: bool
) -> None:
    text = f"""
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {{name: x}}
spec: {{domain: {{devices: {devices}, memory: {{guest: 64Mi}}}}, volumes: []}}
"""
    settings = msgspec.structs.replace(SIDECARS, log_serial_console=cluster)
    spec = launcher_pod(instance(text), settings)["spec"]
    compute, *others = spec["containers"]
    assert ("--console-pipe" in compute["command"]) is logged
    assert [c["name"] for c in others] == (["guest-console-log"] if logged else [])
    check_names(spec)


def test_a_kernel_out_of_an_image_has_a_holder_of_its_own() -> None:
    boot = "firmware: {kernelBoot: {container: {image: k, kernelPath: /k, imagePullSecret: s}}}"
    text = f"""
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {{name: x}}
spec: {{domain: {{devices: {{}}, memory: {{guest: 64Mi}}, {boot}}}}}
"""
    spec = launcher_pod(instance(text), SIDECARS)["spec"]
    assert pod_layout.held_volume(tuple(spec["containers"][1]["command"])) == pod_layout.KERNEL_BOOT
    assert spec["imagePullSecrets"] == [{"name": "s"}]


@pytest.mark.parametrize(
    ("grace", "expected"), [("", 60), ("terminationGracePeriodSeconds: 5", 35)]
)
def test_the_pod_waits_longer_than_the_guest(grace: str, expected: int) -> None:
    assert (
        launcher_pod(minimal(grace), SIDECARS)["spec"]["terminationGracePeriodSeconds"] == expected
    )


def test_probes_of_the_kubelet_pass_and_wait_for_the_guest() -> None:
    vmi = minimal("readinessProbe: {tcpSocket: {port: 22}, initialDelaySeconds: 5}")
    compute = launcher_pod(vmi, SIDECARS)["spec"]["containers"][0]
    assert compute["readinessProbe"] == {"tcpSocket": {"port": 22}, "initialDelaySeconds": 15}


PROBE = ["virt-probe", "--timeoutSeconds"]
LONG = f"{'c' * 60}.{'c' * 60}"


@pytest.mark.parametrize(
    ("probe", "program", "seconds"),
    [
        (
            "exec: {command: [cat, /x, '--']}",
            [*PROBE, "1", "--command", "cat", "--", "/x", "--"],
            2,
        ),
        ("exec: {command: [a]}, timeoutSeconds: 0", [*PROBE, "1", "--command", "a", "--"], 2),
        ("guestAgentPing: {}, timeoutSeconds: 7", [*PROBE, "7", "--guestAgentPing"], 8),
    ],
)
@pytest.mark.parametrize("kind", ["livenessProbe", "readinessProbe"])
def test_probes_inside_of_the_guest_are_programs_of_the_launcher(
    kind: str, probe: str, program: list[str], seconds: int
) -> None:
    pod = launcher_pod(minimal(f"{kind}: {{{probe}, failureThreshold: 5}}"), SIDECARS)
    compute = pod["spec"]["containers"][0]
    assert compute[kind] == {
        "exec": {"command": program},
        "timeoutSeconds": seconds,
        "failureThreshold": 5,
        "initialDelaySeconds": 10,
    }
    plain = launcher_pod(minimal(), SIDECARS)["spec"]["containers"][0]
    more, less = (int(c["resources"]["requests"]["memory"]) for c in (compute, plain))
    assert more > less


def test_secrets_of_access_credentials_are_mounted_once_each() -> None:
    def key(secret: str, user: str) -> str:
        agent = f"{{qemuGuestAgent: {{users: [{user}]}}}}"
        source = f"{{secret: {{secretName: {secret}}}}}"
        return f"{{sshPublicKey: {{source: {source}, propagationMethod: {agent}}}}}"

    entries = ", ".join((key("a.b", "one"), key("a.b", "two"), key(LONG, "one")))
    pod = launcher_pod(minimal(f"accessCredentials: [{entries}]"), SIDECARS)
    check_restricted(pod)
    check_names(pod["spec"])
    secrets = {
        v["secret"]["secretName"]: v["name"] for v in pod["spec"]["volumes"] if "secret" in v
    }
    assert set(secrets) == {"a.b", LONG}
    mounts = {m["name"]: m["mountPath"] for m in pod["spec"]["containers"][0]["volumeMounts"]}
    assert mounts[secrets["a.b"]] == "/var/run/kubevirt-private/secret/a.b-access-cred"


def test_names() -> None:
    assert re.fullmatch(r"virt-launcher-myvm-[a-z0-9]{5}", pod_name("myvm", UUID))
    assert pod_name("myvm", UUID) == pod_name("myvm", UUID) != pod_name("myvm", UUID[::-1])
    assert len(pod_name("a" * 253, UUID)) == 63
    assert instance_id("a" * 63) == "a" * 63
    assert len(instance_id("a" * 64)) == 63
    assert instance_id("a" * 64) != instance_id("a" * 65)
