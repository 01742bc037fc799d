"""Fields of KubeVirt's v1 API that we do not implement: refused by name, never ignored.

Source: KubeVirt's v1 API, v1.9. Paths are below the spec of a VirtualMachineInstance, ``[]`` stands for an index.
The tables hold what to do instead, where there is something.
"""

from __future__ import annotations

from typing import Final

_GONE: Final = "KubeVirt has dropped this field; "
_NOT_YET: Final = "KubeVirt has this field; qvirt does not implement it yet"

#: Path -> remedy, which may be empty.
INSTANCE_FIELDS: Final[dict[str, str]] = {
    "resourceClaims": "",
    "serviceAccountName": "",
    "utilityVolumes": "",
    "domain.cpu.isolateEmulatorThread": "",
    "domain.cpu.numa": "",
    "domain.cpu.realtime": "",
    "domain.memory.reservedOverhead": "",
    "domain.firmware.acpi": "",
    "domain.launchSecurity": "",
    "domain.devices.autoattachVSOCK": "",
    "domain.devices.clientPassthrough": "",
    "domain.devices.downwardMetrics": "",
    "domain.devices.filesystems": "",
    "domain.devices.gpus": "",
    "domain.devices.hostDevices": "",
    "domain.devices.tpm": "",
    "domain.devices.watchdog.diag288": "it is a device of s390x; use i6300esb",
    "domain.devices.disks[].blockSize.matchVolume": "give the sizes in blockSize.custom",
    "domain.devices.disks[].changedBlockTracking": "",
    "domain.devices.interfaces[].binding": "use bridge, masquerade or passtBinding",
    "domain.devices.interfaces[].portRanges": "list the ports in ports",
    "domain.devices.interfaces[].sriov": "use bridge or masquerade",
    "networks[].resourceClaim": "",
    "volumes[].configMap": "",
    "volumes[].containerPath": "",
    "volumes[].dataVolume": "name its claim in persistentVolumeClaim",
    "volumes[].downwardAPI": "",
    "volumes[].downwardMetrics": "",
    "volumes[].hostDisk": "use persistentVolumeClaim",
    "volumes[].memoryDump": "",
    "volumes[].secret": "",
    "volumes[].serviceAccount": "",
    "volumes[].sysprep": "",
}

#: Names of older API versions, and what has taken their place.
OLD_INSTANCE_FIELDS: Final[dict[str, str]] = {
    "domain.devices.disks[].volumeName": "since v1 a disk has the name of its volume",
    "domain.devices.interfaces[].slirp": "use masquerade or passtBinding",
    "domain.devices.interfaces[].macvtap": "use bridge",
    "domain.devices.interfaces[].passt": "use passtBinding",
    "volumes[].registryDisk": "v1 calls it containerDisk",
}

#: Below the spec of a VirtualMachine.
MACHINE_FIELDS: Final[dict[str, str]] = {
    "dataVolumeTemplates": "make the claim first and name it in a persistentVolumeClaim volume",
    "instancetype": "write its values into spec.template.spec.domain",
    "preference": "write its values into spec.template.spec.domain",
    "updateVolumesStrategy": "",
}

#: v1's names for fields of the seed's v1alpha1.
V1_NAMES: Final[dict[str, str]] = {
    "spec.volumes[].containerDisk": "v1alpha1 calls it registryDisk",
    "spec.template": "a v1alpha1 VirtualMachine has no template; this is a v1 manifest: write apiVersion kubevirt.io/v1",
    "spec.running": "a v1alpha1 VirtualMachine runs as long as it exists; this is a v1 manifest: write apiVersion kubevirt.io/v1",
    "spec.runStrategy": "a v1alpha1 VirtualMachine runs as long as it exists; this is a v1 manifest: write apiVersion kubevirt.io/v1",
}


def of_instance(prefix: str = "spec") -> dict[str, str]:
    """Whole path -> what to say, for the fields of an instance whose spec stands at `prefix`."""
    refused = {f"{prefix}.{path}": _with(_NOT_YET, fix) for path, fix in INSTANCE_FIELDS.items()}
    old = {f"{prefix}.{path}": _GONE + fix for path, fix in OLD_INSTANCE_FIELDS.items()}
    return refused | old


def of_machine() -> dict[str, str]:
    """Whole path -> what to say, for a v1 VirtualMachine."""
    refused = {f"spec.{path}": _with(_NOT_YET, fix) for path, fix in MACHINE_FIELDS.items()}
    return refused | of_instance("spec.template.spec")


def _with(sentence: str, remedy: str) -> str:
    return f"{sentence}: {remedy}" if remedy else sentence
