"""Manifests that nobody can run, and what the user is told: used by this room's tests and on the real cluster.

Each is a manifest of a working machine with one thing spoilt.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

_DISK = {"name": "root", "disk": {"bus": "virtio"}}
_VOLUME = {"name": "root", "containerDisk": {"image": "registry.example/guest:1"}}
_SPEC: Object = {
    "domain": {
        "memory": {"guest": "64M"},
        "devices": {
            "disks": [_DISK],
            "interfaces": [{"name": "default", "masquerade": {}}],
        },
    },
    "networks": [{"name": "default", "pod": {}}],
    "volumes": [_VOLUME],
}
_OLD_SPEC: Object = {
    "domain": {
        "resources": {"requests": {"memory": "64M"}},
        "devices": {"disks": [{"name": "d", "volumeName": "root", "disk": {"bus": "virtio"}}]},
    },
    "volumes": [{"name": "root", "registryDisk": {"image": "registry.example/guest:1"}}],
}


@dataclass(frozen=True)
class Bad:
    """A manifest, and the one reason why it is refused."""

    name: str
    manifest: Object
    #: As the user would write it; empty when the reason is no field's.
    path: str
    message: str


def instance(change: Callable[[Object], object] = lambda _: None) -> Object:
    """A VirtualMachineInstance whose spec is changed."""
    spec = copy.deepcopy(_SPEC)
    change(spec)
    return _object("VirtualMachineInstance", "v1", spec)


def machine(change: Callable[[Object], object] = lambda _: None, **spec: Any) -> Object:
    """A VirtualMachine that is halted, the spec of whose template is changed.

    :param spec: fields of its own spec.
    """
    inner = copy.deepcopy(_SPEC)
    change(inner)
    template = {"metadata": {"labels": {"app": "bad"}}, "spec": inner}
    return _object(
        "VirtualMachine", "v1", {**(spec or {"runStrategy": "Halted"}), "template": template}
    )


def old_machine(change: Callable[[Object], object] = lambda _: None) -> Object:
    """A v1alpha1 VirtualMachine whose spec is changed."""
    spec = copy.deepcopy(_OLD_SPEC)
    change(spec)
    return _object("VirtualMachine", "v1alpha1", spec)


def replica_set(
    labels: dict[str, str], change: Callable[[Object], object] = lambda _: None
) -> Object:
    """A VirtualMachineInstanceReplicaSet for instances with ``app: bad``, whose template has these labels."""
    inner = copy.deepcopy(_SPEC)
    change(inner)
    template = {"metadata": {"labels": labels}, "spec": inner}
    selector = {"matchLabels": {"app": "bad"}}
    spec = {"replicas": 0, "selector": selector, "template": template}
    return _object("VirtualMachineInstanceReplicaSet", "v1", spec)


def _object(kind: str, version: str, spec: Object) -> Object:
    name = {"name": "bad"}
    return {"apiVersion": f"kubevirt.io/{version}", "kind": kind, "metadata": name, "spec": spec}


def _labelled(manifest: Object, **labels: str) -> Object:
    return {**manifest, "metadata": {**manifest["metadata"], "labels": labels}}


def _disk(**fields: Any) -> Callable[[Object], object]:
    return lambda spec: spec["domain"]["devices"]["disks"][0].update(fields)


def _volume(**fields: Any) -> Callable[[Object], object]:
    return lambda spec: spec["volumes"].__setitem__(0, {"name": "root", **fields})


def _card(**fields: Any) -> Callable[[Object], object]:
    return lambda spec: spec["domain"]["devices"]["interfaces"][0].update(fields)


def _domain(**fields: Any) -> Callable[[Object], object]:
    return lambda spec: spec["domain"].update(fields)


def _more(key: str, value: object) -> Callable[[Object], object]:
    return lambda spec: spec.__setitem__(key, value)


def _second_disk(spec: Object) -> None:
    spec["domain"]["devices"]["disks"].append(copy.deepcopy(_DISK))


_VM = "spec.template.spec"
_LONG = "#cloud-config\n" + "#" * 2048
_PROBE = {"httpGet": {"port": 80}, "tcpSocket": {"port": 80}}
_NOT_YET = "KubeVirt has this field; qvirt does not implement it yet"

BAD: tuple[Bad, ...] = (
    Bad(
        "disk without volume",
        machine(_disk(name="other")),
        f"{_VM}.domain.devices.disks[0].name",
        f"{_VM}.domain.devices.disks[0].Name 'other' not found.",
    ),
    Bad(
        "two disks of one name",
        machine(_second_disk),
        f"{_VM}.domain.devices.disks[1].name",
        f"{_VM}.domain.devices.disks[1] and {_VM}.domain.devices.disks[0] must not have the same Name.",
    ),
    Bad(
        "disk that is a CD-ROM, too",
        machine(_disk(cdrom={"bus": "sata"})),
        f"{_VM}.domain.devices.disks[0]",
        f"{_VM}.domain.devices.disks[0] can only have a single target type defined",
    ),
    Bad(
        "CD-ROM on virtio",
        instance(
            lambda spec: spec["domain"]["devices"]["disks"].__setitem__(
                0, {"name": "root", "cdrom": {"bus": "virtio"}}
            )
        ),
        "spec.domain.devices.disks[0].cdrom.bus",
        "Bus type virtio is invalid for CD-ROM device",
    ),
    Bad(
        "boot order 0",
        machine(_disk(bootOrder=0)),
        f"{_VM}.domain.devices.disks[0].bootOrder",
        f"{_VM}.domain.devices.disks[0] must have a boot order > 0, if supplied",
    ),
    Bad(
        "serial number with a blank",
        machine(_disk(serial="a b")),
        f"{_VM}.domain.devices.disks[0].serial",
        f"{_VM}.domain.devices.disks[0].serial must be made up of the following characters [A-Za-z0-9_.+-], if specified",
    ),
    Bad(
        "no memory",
        machine(_domain(memory=None)),
        f"{_VM}.domain.memory.guest",
        f"no memory requested, at least one of '{_VM}.domain.memory.guest', '{_VM}.domain.memory.hugepages.pageSize' or '{_VM}.domain.resources.requests.memory' must be set",
    ),
    Bad(
        "request beyond limit",
        machine(_domain(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}})),
        f"{_VM}.domain.resources.requests.memory",
        f"{_VM}.domain.resources.requests.memory '2Gi' is greater than {_VM}.domain.resources.limits.memory '1Gi'",
    ),
    Bad(
        "machine of another architecture",
        machine(_domain(machine={"type": "s390-ccw-virtio"})),
        f"{_VM}.domain.machine.type",
        f"{_VM}.domain.machine.type is not supported: s390-ccw-virtio (allowed values: [q35* pc-q35* pc pc-i440fx-* microvm])",
    ),
    Bad(
        "Secure Boot without SMM",
        machine(_domain(firmware={"bootloader": {"efi": {}}})),
        f"{_VM}.domain.firmware.bootloader.efi.secureBoot",
        f"{_VM}.domain.firmware.bootloader has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled.",
    ),
    Bad(
        "running and runStrategy",
        machine(running=True, runStrategy="Always"),
        "spec.running",
        "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please use RunStrategy instead",
    ),
    Bad(
        "neither running nor runStrategy",
        _object("VirtualMachine", "v1", {"template": {"spec": _SPEC}}),
        "spec.runStrategy",
        "RunStrategy must be specified",
    ),
    Bad(
        "network without interface",
        instance(
            lambda spec: spec["networks"].append({"name": "more", "multus": {"networkName": "n"}})
        ),
        "spec.networks[1].name",
        "spec.networks[1].name 'more' not found.",
    ),
    Bad(
        "two bindings",
        machine(_card(bridge={})),
        f"{_VM}.domain.devices.interfaces[0]",
        "logical default interface must have exactly one binding method or binding plugin",
    ),
    Bad(
        "malformed MAC address",
        machine(_card(macAddress="de:ad:be:ef")),
        f"{_VM}.domain.devices.interfaces[0].macAddress",
        "interface default has malformed MAC address (de:ad:be:ef).",
    ),
    Bad(
        "port beyond 65535",
        machine(_card(ports=[{"port": 80000}])),
        f"{_VM}.domain.devices.interfaces[0].ports[0].port",
        "Port field must be in range 0 < x < 65536.",
    ),
    Bad(
        "two kinds of user data",
        machine(_volume(cloudInitNoCloud={"userData": "#", "secretRef": {"name": "s"}})),
        f"{_VM}.volumes[0].cloudInitNoCloud",
        f"{_VM}.volumes[0].cloudInitNoCloud must have only one userdatasource set.",
    ),
    Bad(
        "user data that is not base64",
        machine(_volume(cloudInitNoCloud={"userDataBase64": "#cloud-config"})),
        f"{_VM}.volumes[0].cloudInitNoCloud.userDataBase64",
        f"{_VM}.volumes[0].cloudInitNoCloud.userDataBase64 is not a valid base64 value.",
    ),
    Bad(
        "user data of more than 2048 bytes",
        machine(_volume(cloudInitNoCloud={"userData": _LONG})),
        f"{_VM}.volumes[0].cloudInitNoCloud.userData",
        f"{_VM}.volumes[0].cloudInitNoCloud userdata exceeds 2048 byte limit. Should use UserDataSecretRef for larger data.",
    ),
    Bad(
        "containerDisk at the root",
        machine(_volume(containerDisk={"image": "i", "path": "/"})),
        f"{_VM}.volumes[0].containerDisk.path",
        f"{_VM}.volumes[0].containerDisk.path must not point to root",
    ),
    Bad(
        "volume of two sources",
        machine(_volume(containerDisk={"image": "i"}, emptyDisk={"capacity": "1Gi"})),
        f"{_VM}.volumes[0]",
        f"{_VM}.volumes[0] must have exactly one source type set",
    ),
    Bad(
        "field that qvirt does not implement",
        machine(_domain(launchSecurity={"sev": {}})),
        f"{_VM}.domain.launchSecurity",
        _NOT_YET,
    ),
    Bad(
        "volume of a kind that qvirt does not implement",
        machine(_volume(hostDisk={"path": "/disk.img", "type": "Disk"})),
        f"{_VM}.volumes[0].hostDisk",
        f"{_NOT_YET}: use persistentVolumeClaim",
    ),
    Bad(
        "field that v1 has renamed",
        machine(_volume(registryDisk={"image": "i"})),
        f"{_VM}.volumes[0].registryDisk",
        "KubeVirt has dropped this field; v1 calls it containerDisk",
    ),
    Bad(
        "DNS policy None without settings",
        machine(_more("dnsPolicy", "None")),
        f"{_VM}.dnsConfig",
        "must provide `dnsConfig` when `dnsPolicy` is None",
    ),
    Bad(
        "probe of two kinds",
        instance(_more("readinessProbe", _PROBE)),
        "spec.readinessProbe",
        "spec.readinessProbe must have exactly one probe type set",
    ),
    Bad(
        "label that is ours",
        _labelled(instance(), **{"kubevirt.io/nodeName": "elsewhere"}),
        "",
        "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited: kubevirt.io/nodeName",
    ),
    Bad(
        "selector that misses the template",
        replica_set({"app": "good"}),
        "spec.selector",
        "selector does not match labels.",
    ),
    Bad(
        "template of a replica set",
        replica_set({"app": "bad"}, _disk(name="other")),
        f"{_VM}.domain.devices.disks[0].name",
        f"{_VM}.domain.devices.disks[0].Name 'other' not found.",
    ),
    Bad(
        "v1alpha1 disk without volume",
        old_machine(_disk(volumeName="other")),
        "spec.domain.devices.disks[0].volumeName",
        "spec.domain.devices.disks[0].volumeName 'other' not found.",
    ),
    Bad(
        "v1alpha1 with v1's name of a volume",
        old_machine(_volume(containerDisk={"image": "i"})),
        "spec.volumes[0].containerDisk",
        "v1alpha1 calls it registryDisk",
    ),
)
