"""The names on the wire are KubeVirt's: whole manifests go through the structs and come out as they were."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qvirt_crds.vm import VirtualMachine, VirtualMachineInstance

# Every field of the contract, at a value that is not its default (defaults are left out when encoding).
DISKS: list[Any] = [
    {
        "name": "root",
        "disk": {"bus": "virtio", "readonly": True, "pciAddress": "0000:81:01.0"},
        "bootOrder": 1,
        "serial": "S-1",
        "dedicatedIOThread": True,
        "cache": "none",
        "io": "native",
        "tag": "t",
        "blockSize": {"custom": {"logical": 512, "physical": 4096, "discardGranularity": 4096}},
        "shareable": True,
        "errorPolicy": "report",
    },
    {"name": "lun", "lun": {"bus": "scsi", "readonly": True, "reservation": True}},
    {"name": "cd", "cdrom": {"bus": "sata", "readonly": False, "tray": "open"}},
    {"name": "fd", "floppy": {"readonly": True, "tray": "closed"}},
]
INTERFACES: list[Any] = [
    {
        "name": "default",
        "model": "e1000e",
        "masquerade": {},
        "ports": [{"port": 80, "name": "http", "protocol": "UDP"}],
        "macAddress": "02:00:00:00:00:01",
        "bootOrder": 2,
        "pciAddress": "0000:81:02.0",
        "acpiIndex": 7,
        "tag": "net",
        "dhcpOptions": {
            "bootFileName": "b",
            "tftpServerName": "t",
            "ntpServers": ["10.0.0.1"],
            "privateOptions": [{"option": 240, "value": "x"}],
        },
        "state": "down",
    },
    {"name": "two", "bridge": {}},
    {"name": "three", "passtBinding": {}},
]
HYPERV = {
    "relaxed": {"enabled": True},
    "vapic": {"enabled": True},
    "spinlocks": {"enabled": True, "spinlocks": 8191},
    "vpindex": {"enabled": True},
    "runtime": {"enabled": True},
    "synic": {"enabled": True},
    "synictimer": {"enabled": True, "direct": {"enabled": True}},
    "reset": {"enabled": True},
    "vendorid": {"enabled": True, "vendorid": "vendor"},
    "frequencies": {"enabled": True},
    "reenlightenment": {"enabled": True},
    "tlbflush": {"enabled": True, "direct": {"enabled": True}, "extended": {"enabled": True}},
    "ipi": {"enabled": False},
    "evmcs": {"enabled": True},
}
DOMAIN: dict[str, Any] = {
    "devices": {
        "disks": DISKS,
        "interfaces": INTERFACES,
        "inputs": [{"name": "tablet", "bus": "usb", "type": "tablet"}],
        "watchdog": {"name": "dog", "i6300esb": {"action": "reset"}},
        "rng": {},
        "video": {"type": "vga"},
        "sound": {"name": "s", "model": "ich9"},
        "panicDevices": [{"model": "pvpanic"}],
        "networkInterfaceMultiqueue": True,
        "blockMultiQueue": True,
        "autoattachPodInterface": False,
        "autoattachGraphicsDevice": False,
        "autoattachSerialConsole": False,
        "autoattachMemBalloon": False,
        "autoattachInputDevice": True,
        "logSerialConsole": True,
        "disableHotplug": True,
        "useVirtioTransitional": True,
    },
    "resources": {
        "requests": {"memory": "64M", "cpu": 1},
        "limits": {"memory": "64Mi"},
        "overcommitGuestOverhead": True,
    },
    "cpu": {
        "cores": 2,
        "sockets": 1,
        "threads": 1,
        "maxSockets": 4,
        "model": "host-model",
        "features": [{"name": "vmx", "policy": "disable"}],
        "dedicatedCpuPlacement": True,
    },
    "memory": {"guest": "1Gi", "maxGuest": "4Gi", "hugepages": {"pageSize": "2Mi"}},
    "machine": {"type": "q35"},
    "firmware": {
        "uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223",
        "serial": "s",
        "bootloader": {
            "bios": {"useSerial": True},
            "efi": {"secureBoot": False, "persistent": True},
        },
        "kernelBoot": {
            "kernelArgs": "quiet",
            "container": {
                "image": "i",
                "imagePullPolicy": "Always",
                "imagePullSecret": "p",
                "kernelPath": "/k",
                "initrdPath": "/i",
            },
        },
    },
    "chassis": {"manufacturer": "m", "version": "v", "serial": "s", "asset": "a", "sku": "k"},
    "clock": {
        "utc": {"offsetSeconds": 5},
        "timezone": "Europe/Paris",
        "timer": {
            "hpet": {"present": False, "tickPolicy": "delay"},
            "kvm": {"present": True},
            "pit": {"present": True},
            "rtc": {"present": True, "track": "guest"},
            "hyperv": {"present": True},
        },
    },
    "features": {
        "acpi": {"enabled": True},
        "apic": {"enabled": True, "endOfInterrupt": True},
        "smm": {"enabled": True},
        "kvm": {"hidden": True},
        "pvspinlock": {"enabled": True},
        "hyperv": HYPERV,
        "hypervPassthrough": {"enabled": True},
    },
    "ioThreadsPolicy": "supplementalPool",
    "ioThreads": {"supplementalPoolThreadCount": 2},
    "rebootPolicy": "Terminate",
}
CLOUD_INIT = {
    "userData": "u",
    "userDataBase64": "dQ==",
    "secretRef": {"name": "s"},
    "networkData": "n",
    "networkDataBase64": "bg==",
    "networkDataSecretRef": {"name": "n"},
}
CLAIM = {"claimName": "c", "readOnly": True}
SPEC: dict[str, Any] = {
    "domain": DOMAIN,
    "volumes": [
        {
            "name": "a",
            "containerDisk": {
                "image": "i",
                "imagePullSecret": "s",
                "path": "/disk/x",
                "imagePullPolicy": "Always",
            },
        },
        {"name": "b", "persistentVolumeClaim": {**CLAIM, "hotpluggable": True}},
        {"name": "c", "ephemeral": {"persistentVolumeClaim": CLAIM}},
        {"name": "d", "emptyDisk": {"capacity": "1Gi"}},
        {"name": "e", "cloudInitNoCloud": CLOUD_INIT},
        {"name": "f", "cloudInitConfigDrive": CLOUD_INIT},
    ],
    "networks": [
        {"name": "p", "pod": {"vmNetworkCIDR": "10.1.0.0/24", "vmIPv6NetworkCIDR": "fd00::/120"}},
        {"name": "m", "multus": {"networkName": "ns/nad", "default": True}},
    ],
    "architecture": "amd64",
    "hostname": "h",
    "subdomain": "sub",
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.10"]},
    "terminationGracePeriodSeconds": 0,
    "evictionStrategy": "LiveMigrate",
    "startStrategy": "Paused",
    "nodeSelector": {"a": "b"},
    "affinity": {"nodeAffinity": {}},
    "tolerations": [{"key": "k"}],
    "topologySpreadConstraints": [{"maxSkew": 1}],
    "schedulerName": "s",
    "priorityClassName": "p",
    "livenessProbe": {"guestAgentPing": {}},
    "readinessProbe": {"tcpSocket": {"port": 1}},
    "accessCredentials": [
        {
            "sshPublicKey": {
                "source": {"secret": {"secretName": "keys"}},
                "propagationMethod": {
                    "noCloud": {},
                    "configDrive": {},
                    "qemuGuestAgent": {"users": ["vera"]},
                },
            },
            "userPassword": {
                "source": {"secret": {"secretName": "words"}},
                "propagationMethod": {"qemuGuestAgent": {}},
            },
        }
    ],
}
META = {
    "name": "vm",
    "namespace": "ns",
    "labels": {"a": "b"},
    "annotations": {"c": "d"},
    "uid": "u",
    "resourceVersion": "1",
    "generation": 2,
    "creationTimestamp": "2018-03-08T00:00:00Z",
    "deletionTimestamp": "2018-03-08T00:00:00Z",
    "deletionGracePeriodSeconds": 0,
    "finalizers": ["f"],
    "ownerReferences": [{"uid": "x"}],
    "managedFields": [{"manager": "m"}],
    "generateName": "g-",
    "selfLink": "/x",
}


def through(kind: type[Any], manifest: dict[str, Any]) -> object:
    return msgspec.json.decode(msgspec.json.encode(msgspec.convert(manifest, kind)))


@pytest.mark.parametrize("api_version", ["kubevirt.io/v1", "kubevirt.io/v1alpha3"])
def test_every_field_of_an_instance_keeps_its_name(api_version: str) -> None:
    manifest = {
        "apiVersion": api_version,
        "kind": "VirtualMachineInstance",
        "metadata": META,
        "spec": SPEC,
        "status": {"phase": "Running"},
    }
    assert through(VirtualMachineInstance, manifest) == manifest


def test_every_field_of_a_machine_keeps_its_name() -> None:
    manifest = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": META,
        "spec": {
            "running": False,
            "runStrategy": "Once",
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": SPEC},
        },
        "status": {"ready": False},
    }
    assert through(VirtualMachine, manifest) == manifest


def fields_without_a_value(kind: type[Any], data: Any, path: str) -> list[str]:
    """Struct fields that the manifest above does not use anywhere at `path` (so that a new field can't be forgotten)."""
    missing: list[str] = []
    for field in msgspec.structs.fields(kind):
        here = [d[field.encode_name] for d in data if field.encode_name in d]
        if not here:
            missing.append(f"{path}.{field.encode_name}")
            continue
        flat = [x for value in here for x in (value if isinstance(value, list) else [value])]
        for inner in _structs(msgspec.inspect.type_info(field.type)):
            missing += fields_without_a_value(inner, flat, f"{path}.{field.encode_name}")
    return missing


def _structs(info: msgspec.inspect.Type) -> list[type[Any]]:
    match info:
        case msgspec.inspect.StructType(cls=cls):
            return [cls]
        case msgspec.inspect.UnionType(types=types):
            return [s for t in types for s in _structs(t)]
        case msgspec.inspect.VarTupleType(item_type=item):
            return _structs(item)
        case _:
            return []


def test_the_manifest_above_names_every_field() -> None:
    manifest = {"apiVersion": "", "kind": "", "metadata": META, "spec": SPEC, "status": {}}
    # Timers share one struct, but only some timers have a policy or a track; any of them may show it.
    assert fields_without_a_value(VirtualMachineInstance, [manifest], "") == [
        ".spec.domain.clock.timer.hpet.track",
        ".spec.domain.clock.timer.kvm.tickPolicy",
        ".spec.domain.clock.timer.kvm.track",
        ".spec.domain.clock.timer.pit.tickPolicy",
        ".spec.domain.clock.timer.pit.track",
        ".spec.domain.clock.timer.rtc.tickPolicy",
        ".spec.domain.clock.timer.hyperv.tickPolicy",
        ".spec.domain.clock.timer.hyperv.track",
        ".spec.volumes.ephemeral.persistentVolumeClaim.hotpluggable",
    ]


def test_api_version_and_kind_are_written() -> None:
    vmi = msgspec.convert(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "x"},
            "spec": {"domain": {"devices": {}}},
        },
        VirtualMachineInstance,
    )
    assert msgspec.json.decode(msgspec.json.encode(vmi)) == {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "x"},
        "spec": {"domain": {"devices": {}}},
    }
