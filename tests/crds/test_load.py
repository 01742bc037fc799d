"""Manifests in, objects out; each bad manifest gives its errors at line and path, all of them at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.errors import SpecError
from qvirt_crds.load import Manifests, load_manifests
from qvirt_crds.validate import validate_vmi

EXAMPLES = Path(__file__).parents[2] / "examples"
SEED = (EXAMPLES / "seed-vm.yaml").read_text()
VMI = """\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: vm
spec:
  domain:
    memory:
      guest: 64Mi
    devices:
      disks:
      - name: root
        disk:
          bus: virtio
      - name: seed
        disk: {}
  volumes:
  - name: root
    emptyDisk:
      capacity: 1Gi
  - name: seed
    cloudInitNoCloud:
      userData: x
"""
VM = """\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: vm
  labels:
    of: the-vm
spec:
  runStrategy: Always
  template:
    metadata:
      labels:
        of: the-instance
      annotations:
        a: b
    spec:
      domain:
        memory:
          guest: 64Mi
        devices: {}
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata:
  name: s
data:
  userdata: aGVsbG8=
  both: bm8=
stringData:
  both: yes, this
"""


def load(text: str) -> Manifests:
    return load_manifests(text, "vm.yaml")


def refusals(text: str) -> list[str]:
    with pytest.raises(SpecError) as raised:
        load(text)
    return str(raised.value).splitlines()


# -- what is accepted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_loads_and_stays_valid_with_its_defaults(path: Path) -> None:
    (vmi,) = load_manifests(path.read_text(), path.name).instances
    assert (
        validate_vmi(apply_defaults(vmi, new_uuid=lambda: "0" * 8 + "-0000" * 3 + "-" + "0" * 12))
        == ()
    )


def test_the_seeds_manifest() -> None:
    (vmi,) = load(SEED).instances
    assert vmi.api_version == "kubevirt.io/v1"
    assert vmi.metadata.name == "myvm"
    assert vmi.spec.termination_grace_period_seconds == 5
    root, seed = vmi.spec.volumes
    assert root.container_disk is not None
    assert root.container_disk.image == "kubevirt/cirros-registry-disk-demo:devel"
    assert seed.cloud_init_no_cloud is not None
    assert seed.cloud_init_no_cloud.user_data == (
        "ssh-authorized-keys:\n  - ssh-rsa AAAAB3NzaK8L93bWxnyp test@test.com\n"
    )
    assert [d.name for d in vmi.spec.domain.devices.disks] == [root.name, seed.name]


def test_the_instance_of_a_machine() -> None:
    manifests = load(VM)
    (vmi,), (vm,) = manifests.instances, manifests.machines
    assert vm.metadata.labels == {"of": "the-vm"}
    assert vmi.kind == "VirtualMachineInstance"
    assert vmi.metadata.name == "vm"
    assert vmi.metadata.labels == {"of": "the-instance"}
    assert vmi.metadata.annotations == {"a": "b"}
    assert vmi.spec.domain.firmware is not None
    # SHA-1 of KubeVirt's namespace and "vm" (by sha1sum), with version and variant put in as RFC 9562 says.
    assert vmi.spec.domain.firmware.uuid == "d633a622-2335-5606-93ae-d432b7c7f2d2"


def test_a_uuid_that_is_given_stays() -> None:
    uuid = "5d307ca9-b3ef-428c-8861-06e72d69f223"
    (vmi,) = load(
        VM.replace("domain:\n", f"domain:\n        firmware: {{uuid: {uuid}}}\n")
    ).instances
    assert vmi.spec.domain.firmware is not None
    assert vmi.spec.domain.firmware.uuid == uuid


def test_several_documents_with_what_they_need() -> None:
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: n}\ndata: {k: v}\nbinaryData: {b: AAE=}\n"
    manifests = load("---\n".join([SECRET, VM, "", config, SEED]))
    assert [vmi.metadata.name for vmi in manifests.instances] == ["vm", "myvm"]
    assert manifests.secrets == {("default", "s"): {"userdata": b"hello", "both": b"yes, this"}}
    assert manifests.config_maps == {("n", "c"): {"k": b"v", "b": b"\x00\x01"}}


def test_v1alpha3_is_v1() -> None:
    assert load(VM.replace("io/v1", "io/v1alpha3")).machines == load(VM).machines
    assert load(VMI.replace("io/v1", "io/v1alpha3")).instances == load(VMI).instances


def test_null_is_absent_as_in_kubernetes() -> None:
    text = VMI.replace("domain:\n", "domain:\n    clock:\n      timer: null\n    cpu: ~\n").replace(
        "  name: vm", "  name: vm\n  labels:\n  creationTimestamp: null"
    )
    assert load(text).instances[0].spec.domain.cpu is None


def test_what_the_server_wrote_is_taken_back() -> None:
    text = VMI.replace(
        "  name: vm\n",
        "  name: vm\n  uid: 1234\n  resourceVersion: '7'\n".replace("1234", "'1234'"),
    )
    (vmi,) = load(text + "status:\n  phase: Running\n").instances
    assert vmi.metadata.uid == "1234"
    assert vmi.status == {"phase": "Running"}


def test_a_mac_address_needs_no_quotes() -> None:
    card = "devices:\n      interfaces: [{name: n, bridge: {}, macAddress: 52:54:00:12:34:56}]\n"
    text = VMI.replace("devices:\n", card) + "  networks: [{name: n, pod: {}}]\n"
    (vmi,) = load(text).instances
    assert vmi.spec.domain.devices.interfaces[0].mac_address == "52:54:00:12:34:56"


# -- what is refused --------------------------------------------------------------------------------------------------

D = "spec.domain.devices"


@pytest.mark.parametrize(
    ("text", "old", "new", "lines"),
    [
        # Wrong YAML.
        (VMI, "name: vm", "name: [vm", ["vm.yaml:5:5: not YAML: expected ',' or ']', but got ':' (while parsing a flow sequence)"]),
        (VMI, "    memory:", "\tmemory:", ["vm.yaml:7:1: not YAML: found character '\\t' that cannot start any token (while scanning for the next token); YAML is indented with spaces, not tabs"]),
        (VMI, "  volumes:", "  domain: {}\n  volumes:", ["vm.yaml:16:3: spec.domain is written twice (first in line 6)"]),
        # Kinds.
        (VMI, "VirtualMachineInstance", "VirtualMachineInstanc", ['vm.yaml:2: kind: qvirt has no use for a VirtualMachineInstanc (kubevirt.io/v1); did you mean "VirtualMachineInstance"?; it takes VirtualMachine, VirtualMachineInstance (kubevirt.io), and Secret and ConfigMap (v1) beside them']),
        (VMI, "io/v1", "io/v2", ["vm.yaml:1: apiVersion: expected kubevirt.io/v1 or kubevirt.io/v1alpha3 for a VirtualMachineInstance, found kubevirt.io/v2"]),
        (VMI, "apiVersion: kubevirt.io/v1\n", "", ["vm.yaml:1: apiVersion: every object needs apiVersion and kind, like apiVersion: kubevirt.io/v1, kind: VirtualMachine"]),
        (VMI, "kind: VirtualMachineInstance", "kind: 7", ["vm.yaml:2: kind: every object needs apiVersion and kind, like apiVersion: kubevirt.io/v1, kind: VirtualMachine"]),
        # Metadata.
        (VMI, "name: vm", "generateName: vm-", ["vm.yaml:3: metadata.name: a name is required; generateName is for the API server, which makes a name of it"]),
        (VMI, "name: vm", "name: ../../etc", ["vm.yaml:4: metadata.name: '../../etc' is not a DNS-1123 subdomain: lower case letters, digits, '-' and '.', at most 253 characters"]),
        (VMI, "name: vm", "name: vm\n  namespace: a/b", ["vm.yaml:5: metadata.namespace: 'a/b' is not a DNS-1123 label"]),
        (VMI, "metadata:\n  name: vm\n", "", ["vm.yaml:1: metadata: this field is required"]),
        # Unknown and unimplemented fields.
        (VMI, "memory:", "memmory:", ['vm.yaml:7: spec.domain.memmory: unknown field; did you mean "memory"?']),
        (VMI, "bus: virtio", "bsu: virtio", [f'vm.yaml:13: {D}.disks[0].disk.bsu: unknown field; did you mean "bus"?']),
        (VMI, "    devices:", "    devices:\n      tpm: {}\n      wobble: 1", [f"vm.yaml:10: {D}.tpm: KubeVirt has this field; qvirt does not implement it yet", f"vm.yaml:11: {D}.wobble: unknown field"]),
        (VMI, "emptyDisk:", "dataVolume:", ["vm.yaml:18: spec.volumes[0].dataVolume: KubeVirt has this field; qvirt does not implement it yet: name its claim in persistentVolumeClaim"]),
        (VMI, "emptyDisk:", "registryDisk:", ["vm.yaml:18: spec.volumes[0].registryDisk: KubeVirt has dropped this field; v1 calls it containerDisk"]),
        (VM, "  runStrategy: Always", "  runStrategy: Always\n  dataVolumeTemplates: []", ["vm.yaml:9: spec.dataVolumeTemplates: KubeVirt has this field; qvirt does not implement it yet: make the claim first and name it in a persistentVolumeClaim volume"]),
        (VM, "devices: {}", "devices: {gpus: []}", ["vm.yaml:19: spec.template.spec.domain.devices.gpus: KubeVirt has this field; qvirt does not implement it yet"]),
        (SEED, "terminationGracePeriodSeconds", "evictionStrategy", ["vm.yaml:6: spec.evictionStrategy: unknown field"]),
        (SEED, "registryDisk:", "containerDisk:", ["vm.yaml:23: spec.volumes[0].containerDisk: v1alpha1 calls it registryDisk"]),
        (VM, "io/v1", "io/v1alpha1", ["vm.yaml:8: spec.runStrategy: a v1alpha1 VirtualMachine runs as long as it exists; this is a v1 manifest: write apiVersion kubevirt.io/v1", "vm.yaml:9: spec.template: a v1alpha1 VirtualMachine has no template; this is a v1 manifest: write apiVersion kubevirt.io/v1", "vm.yaml:7: spec.domain: this field is required"]),
        # Wrong types.
        (VMI, "bus: virtio", "bus: virtoi", [f'vm.yaml:13: {D}.disks[0].disk.bus: expected one of ide, sata, scsi, usb, virtio, found the string "virtoi"; did you mean "virtio"?']),
        (VMI, "name: root\n        disk", "name: 7\n        disk", [f"vm.yaml:11: {D}.disks[0].name: expected a string, found the number 7; put it in quotes"]),
        (VMI, "disk: {}", "disk: []", [f"vm.yaml:15: {D}.disks[1].disk: expected an object, found a list"]),
        (VMI, "disk: {}", "disk: {readonly: 'yes'}", [f'vm.yaml:15: {D}.disks[1].disk.readonly: expected true or false, found the string "yes"']),
        (VMI, "disk: {}", "bootOrder: 1.5", [f"vm.yaml:15: {D}.disks[1].bootOrder: expected a whole number, found the number 1.5"]),
        (VMI, "guest: 64Mi", "guest: true", ["vm.yaml:8: spec.domain.memory.guest: expected a string or a number, found the boolean true"]),
        (VMI, "guest: 64Mi", "guest: [1]", ["vm.yaml:8: spec.domain.memory.guest: expected a string or a number, found a list"]),
        (VMI, "  - name: seed\n    cloud", "  - seed\n  - cloud", ['vm.yaml:20: spec.volumes[1]: expected an object, found the string "seed"', "vm.yaml:21: spec.volumes[2].name: this field is required"]),
        (VMI, "    devices:", "    devices: none\n    Devices:", ['vm.yaml:9: spec.domain.devices: expected an object, found the string "none"', 'vm.yaml:10: spec.domain.Devices: unknown field; did you mean "devices"?']),
        (VMI, "userData: x", 'userData: "a\\0b"', ["vm.yaml:22: spec.volumes[1].cloudInitNoCloud.userData: a NUL character has no place in a manifest"]),
        (VMI, "userData: x", 'userData: "\\ud800"', ["vm.yaml:22: spec.volumes[1].cloudInitNoCloud.userData: half of a surrogate pair is not a character"]),
        (VMI, "  domain:\n", "  terminationGracePeriodSeconds: 99999999999999999999\n  domain:\n", ["vm.yaml:6: spec.terminationGracePeriodSeconds: expected a whole number, found the number 99999999999999999999"]),
        # Meaning.
        (VMI, "- name: seed\n        disk", "- name: sed\n        disk", [f"vm.yaml:14: {D}.disks[1].name: {D}.disks[1].Name 'sed' not found."]),
        (VMI, "- name: seed\n        disk", "- name: root\n        disk", [f"vm.yaml:14: {D}.disks[1].name: {D}.disks[1] and {D}.disks[0] must not have the same Name."]),
        (VMI, "guest: 64Mi", "guest: 0", ["vm.yaml:8: spec.domain.memory.guest '0': must be greater than or equal to 1M."]),
        (VMI, "guest: 64Mi", "guest: lots", ["vm.yaml:8: spec.domain.memory.guest: 'lots' is not a quantity: write a number with a unit, like 64M (64,000,000) or 64Mi (67,108,864)"]),
        (VMI, "userData: x", "userData: x\n      userDataBase64: eA==", ["vm.yaml:21: spec.volumes[1].cloudInitNoCloud must have only one userdatasource set."]),
        (SEED, "memory: 64M", "memory: lots", ["vm.yaml:10: spec.domain.resources.requests.memory: 'lots' is not a quantity: write a number with a unit, like 64M (64,000,000) or 64Mi (67,108,864)"]),
        (SEED, "volumeName: cloudinitvolume", "volumeName: cloud", [f"vm.yaml:18: {D}.disks[1].volumeName 'cloud' not found."]),
        (SEED, "volumeName: cloudinitvolume", "volumeName: registryvolume", [f"vm.yaml:18: {D}.disks[1].volumeName: {D}.disks[0] and {D}.disks[1] reference the same volumeName."]),
        (SEED, "name: cloudinitdisk", "name: registrydisk", [f"vm.yaml:17: {D}.disks[1].name: {D}.disks[0] and {D}.disks[1] must not have the same Name."]),
        (SEED, "image: kubevirt/", "image: kube virt/", ["vm.yaml:24: spec.volumes[0].registryDisk.image: expected the name of an image, found 'kube virt/cirros-registry-disk-demo:devel'"]),
        (VM, "  runStrategy: Always\n", "", ["vm.yaml:7: spec.runStrategy: RunStrategy must be specified"]),
        (VM, "runStrategy: Always", "runStrategy: Always\n  running: true", ["vm.yaml:9: spec.running: Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please use RunStrategy instead"]),
        # What stands beside.
        (SECRET, "aGVsbG8=", "hello!", ["vm.yaml:6: data.userdata: not a valid base64 value (Only base64 data is allowed); plain text belongs into stringData"]),
        (SECRET, "both: yes, this", "both: yes", ["vm.yaml:9: stringData.both: expected a string, found the boolean true; put it in quotes"]),
    ],
)  # fmt: skip
def test_bad_manifests(text: str, old: str, new: str, lines: list[str]) -> None:
    assert old in text
    assert refusals(text.replace(old, new)) == lines


def test_all_objects_are_looked_at_before_any_is_refused() -> None:
    text = "---\n".join(
        [
            VMI.replace("64Mi", "lots"),
            SECRET.replace("aGVsbG8=", "hello!"),
            VM.replace("Always", "Sometimes"),
        ]
    )
    found = [line.split(": ")[:2] for line in refusals(text)]
    assert found == [
        ["vm.yaml:8", "spec.domain.memory.guest"],
        ["vm.yaml:29", "data.userdata"],
        ["vm.yaml:41", "spec.runStrategy"],
    ]


@pytest.mark.parametrize("text", [VMI, VM, SECRET])
def test_one_name_for_two(text: str) -> None:
    (line,) = refusals(text + "---\n" + text)
    assert "metadata.name: " in line


def test_causes_keep_path_and_place_apart() -> None:
    with pytest.raises(SpecError) as raised:
        load(VMI.replace("64Mi", "0"))
    (cause,) = raised.value.causes
    assert (cause.where, cause.path) == ("vm.yaml:8", "spec.domain.memory.guest")


WORDS = st.sampled_from(
    ["null", "[]", "{}", "-1", "0", "1e999", "true", '""', "'\\0'", "x", "[x, y]", "{name: x}", "64Mi", ".nan", "*a", "!!set {}"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from([SEED, VMI, VM, SECRET]), st.integers(0, 40), WORDS)
@example(VM, 17, ".nan")
def test_any_value_anywhere_is_accepted_or_refused(text: str, index: int, word: str) -> None:
    lines = text.splitlines()
    line = lines[index % len(lines)]
    lines[index % len(lines)] = line.partition(":")[0] + ": " + word
    said = "vm.yaml:"
    try:
        load("\n".join(lines))
    except SpecError as error:
        said = str(error)
    assert said.startswith("vm.yaml:")


def test_the_launchers_imports_bring_no_yaml() -> None:
    code = dedent(
        """
        import sys
        import qvirt_crds.defaults, qvirt_crds.report, qvirt_crds.validate, qvirt_crds.vm
        sys.exit("yaml" in sys.modules)
        """
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
