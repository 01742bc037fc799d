"""Refusals by meaning: each rule with the path and the words that a user gets, and valid neighbours that pass."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.validate import validate_vm, validate_vmi
from qvirt_crds.vm import VirtualMachine, VirtualMachineInstance

SLOW = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None
)
P = "spec.domain"
DISK = "spec.domain.devices.disks[0]"
CARD = "spec.domain.devices.interfaces[0]"


def instance(spec: Any) -> VirtualMachineInstance:
    domain = {"memory": {"guest": "64Mi"}, "devices": {}} | spec.get("domain", {})
    return msgspec.convert(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "vm"},
            "spec": spec | {"domain": domain},
        },
        VirtualMachineInstance,
    )


def said(spec: Any) -> list[tuple[str, str]]:
    return [(cause.path, cause.message) for cause in validate_vmi(instance(spec))]


def domain(**members: Any) -> Any:
    return {"domain": members}


def disk(machine: str = "q35", source: Any = None, **members: Any) -> Any:
    return {
        "domain": {
            "machine": {"type": machine},
            "devices": {"disks": [{"name": "d", **members}]},
        },
        "volumes": [{"name": "d", **(source or {"emptyDisk": {"capacity": "1Gi"}})}],
    }


def volume(**source: Any) -> Any:
    return {"volumes": [{"name": "d", **source}]}


def card(network: Any = None, machine: str = "q35", **members: Any) -> Any:
    binding: Any = {} if {"masquerade", "bridge", "passtBinding"} & set(members) else {"bridge": {}}
    return {
        "domain": {
            "machine": {"type": machine},
            "devices": {"interfaces": [{"name": "n", **binding, **members}]},
        },
        "networks": [{"name": "n", **({"pod": {}} if network is None else network)}],
    }


CLAIM = {"persistentVolumeClaim": {"claimName": "c"}}
NOT_YET = "KubeVirt has this; qvirt does not implement it yet"
MICROVM = "the machine type microvm has only virtio devices, without PCI and USB; use q35"

CREDENTIAL = "spec.accessCredentials[0]"


def credential(entry: dict[str, Any]) -> dict[str, Any]:
    return {"accessCredentials": [entry]}


def key(method: dict[str, Any], secret: str = "s") -> dict[str, Any]:
    return {"source": {"secret": {"secretName": secret}}, "propagationMethod": method}


REFUSED: list[tuple[Any, str, str]] = [
    # Machine.
    (domain(machine={"type": "virt"}), f"{P}.machine.type", f"{P}.machine.type is not supported: virt (allowed values: [q35* pc-q35* pc pc-i440fx-* microvm])"),
    (domain(machine={"type": "q35,accel=xen"}), f"{P}.machine.type", f"{P}.machine.type is not supported: q35,accel=xen (allowed values: [q35* pc-q35* pc pc-i440fx-* microvm])"),
    (domain(chassis={"sku": "a\nb"}), f"{P}.chassis.sku", "control characters and line ends have no place here"),
    # Resources and memory.
    (domain(memory={}), f"{P}.memory.guest", f"no memory requested, at least one of '{P}.memory.guest', '{P}.memory.hugepages.pageSize' or '{P}.resources.requests.memory' must be set"),
    (domain(memory={"guest": "-1"}), f"{P}.memory.guest", f"{P}.memory.guest '-1': must be greater than or equal to 1M."),
    (domain(memory={"guest": "999k"}), f"{P}.memory.guest", f"{P}.memory.guest '999k': must be greater than or equal to 1M."),
    (domain(memory={"guest": "1e19"}), f"{P}.memory.guest", "1e19 is more than a quantity can be (9223372036854775807)"),
    (domain(memory={}, resources={"limits": {"memory": "0"}}), f"{P}.resources.limits.memory", f"{P}.resources.limits.memory '0': must be greater than or equal to 1M."),
    (domain(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}), f"{P}.resources.requests.memory", f"{P}.resources.requests.memory '2Gi' is greater than {P}.resources.limits.memory '1Gi'"),
    (domain(resources={"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}), f"{P}.resources.requests.cpu", f"{P}.resources.requests.cpu '2' is greater than {P}.resources.limits.cpu '1500m'"),
    (domain(resources={"limits": {"cpu": "-1"}}), f"{P}.resources.limits.cpu", f"{P}.resources.limits.cpu '-1': must be greater than or equal to 0."),
    (domain(resources={"limits": {"gpu": 1}}), f"{P}.resources.limits.gpu", f"{NOT_YET}: the resources are cpu, memory, ephemeral-storage"),
    (domain(resources={"requests": {"cpu": "two"}}), f"{P}.resources.requests.cpu", "'two' is not a quantity: write a number with a unit, like 64M (64,000,000) or 64Mi (67,108,864)"),
    (domain(memory={"guest": "1Gi", "maxGuest": "2Gi"}), f"{P}.memory.maxGuest", f"{NOT_YET}: no memory can be plugged into a running guest; leave it out"),
    (domain(memory={"guest": "65Mi", "hugepages": {"pageSize": "2Mi"}}), f"{P}.memory.hugepages.pageSize", f"{P}.memory.guest '65Mi' is not a multiple of the page size {P}.memory.hugepages.pageSize '2Mi'"),
    (domain(memory={"guest": "64Mi", "hugepages": {"pageSize": "1Gi"}}), f"{P}.memory.hugepages.pageSize", f"{P}.memory.guest '64Mi' must be equal to or larger than page size {P}.memory.hugepages.pageSize '1Gi'"),
    (domain(memory={"guest": "64Mi", "hugepages": {"pageSize": "4Ki"}}), f"{P}.memory.hugepages.pageSize", "expected 2Mi or 1Gi, the huge pages of x86; found 4Ki"),
    # CPU.
    (domain(cpu={"cores": 0}), f"{P}.cpu.cores", "must be 1 or more, found 0"),
    (domain(cpu={"sockets": -1}), f"{P}.cpu.sockets", "must be 1 or more, found -1"),
    (domain(cpu={"sockets": 2, "cores": 257}), f"{P}.cpu", "514 vCPUs (sockets * cores * threads) are more than 512"),
    (domain(resources={"limits": {"cpu": 513}}), f"{P}.resources", "513 vCPUs (sockets * cores * threads) are more than 512"),
    (domain(cpu={"sockets": 4, "maxSockets": 2}), f"{P}.cpu.maxSockets", "Number of sockets in CPU topology is greater than the maximum sockets allowed"),
    (domain(cpu={"cores": 256, "maxSockets": 3}), f"{P}.cpu.maxSockets", "more than 512 vCPUs can't be had"),
    (domain(cpu={"model": "qemu64,+vmx"}), f"{P}.cpu.model", "'qemu64,+vmx' is not the name of a CPU model"),
    (domain(cpu={"features": [{"name": "vmx=on"}]}), f"{P}.cpu.features[0].name", "'vmx=on' is not the name of a CPU feature"),
    (domain(cpu={"features": [{"name": "vmx"}, {"name": "vmx"}]}), f"{P}.cpu.features[1].name", "vmx is there twice"),
    (domain(cpu={"dedicatedCpuPlacement": True}), f"{P}.cpu.dedicatedCpuPlacement", NOT_YET),
    # Firmware.
    (domain(firmware={"uuid": "1234"}), f"{P}.firmware.uuid", "'1234' is not a UUID"),
    (domain(firmware={"serial": "a\tb"}), f"{P}.firmware.serial", "control characters and line ends have no place here"),
    (domain(firmware={"bootloader": {"bios": {}, "efi": {"secureBoot": False}}}), f"{P}.firmware.bootloader", f"{P}.firmware.bootloader has both EFI and BIOS configured, but they are mutually exclusive."),
    (domain(firmware={"bootloader": {"efi": {}}}), f"{P}.firmware.bootloader.efi.secureBoot", f"{P}.firmware.bootloader has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled."),
    (domain(firmware={"bootloader": {"efi": {}}}, features={"smm": {"enabled": False}}), f"{P}.firmware.bootloader.efi.secureBoot", f"{P}.firmware.bootloader has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled."),
    (domain(firmware={"bootloader": {"efi": {}}}, features={"smm": {}}, machine={"type": "pc"}), f"{P}.firmware.bootloader.efi.secureBoot", "SecureBoot needs the machine type q35; write secureBoot: false to do without"),
    (domain(firmware={"bootloader": {"efi": {"secureBoot": False, "persistent": True}}}), f"{P}.firmware.bootloader.efi.persistent", NOT_YET),
    (domain(firmware={"bootloader": {"efi": {"secureBoot": False}}}, machine={"type": "microvm"}), f"{P}.firmware.bootloader.efi", "the machine type microvm has no EFI firmware; use q35"),
    (domain(firmware={"kernelBoot": {"kernelArgs": "quiet"}}), f"{P}.firmware.kernelBoot.kernelArgs", "kernel arguments cannot be provided without an external kernel"),
    (domain(firmware={"kernelBoot": {"container": {"image": "", "kernelPath": "/k"}}}), f"{P}.firmware.kernelBoot.container.image", f"{P}.firmware.kernelBoot.container must be defined with an image"),
    (domain(firmware={"kernelBoot": {"container": {"image": "i"}}}), f"{P}.firmware.kernelBoot.container", f"{P}.firmware.kernelBoot.container must be defined with at least one of the following: kernelPath, initrdPath"),
    (domain(firmware={"kernelBoot": {"container": {"image": "i", "initrdPath": "/i"}}}), f"{P}.firmware.kernelBoot.container.initrdPath", "an initrd needs the kernel that unpacks it; give kernelPath, too"),
    (domain(firmware={"kernelBoot": {"container": {"image": "i", "kernelPath": "/a/../b"}}}), f"{P}.firmware.kernelBoot.container.kernelPath", f"{P}.firmware.kernelBoot.container.kernelPath must be an absolute path to a file without relative components"),
    # Clock and features.
    (domain(clock={"utc": {}, "timezone": "Europe/Paris"}), f"{P}.clock", "utc and timezone are mutually exclusive"),
    (domain(clock={"timezone": "../../etc/shadow"}), f"{P}.clock.timezone", "'../../etc/shadow' is not the name of a time zone, like Europe/Paris"),
    (domain(clock={"timer": {"hpet": {"tickPolicy": "merge"}}}), f"{P}.clock.timer.hpet.tickPolicy", "QEMU's hpet timer has no tick policy merge: it can delay"),
    (domain(clock={"timer": {"kvm": {"tickPolicy": "delay"}}}), f"{P}.clock.timer.kvm.tickPolicy", "QEMU's kvm timer has no tick policy delay: it has none"),
    (domain(clock={"timer": {"pit": {"track": "guest"}}}), f"{P}.clock.timer.pit.track", "only the rtc timer has a track"),
    (domain(features={"hyperv": {}, "hypervPassthrough": {}}), f"{P}.features.hypervPassthrough", "hyperv and hypervPassthrough are mutually exclusive"),
    (domain(features={"hyperv": {"synictimer": {}, "synic": {"enabled": False}}}), f"{P}.features.hyperv.synic.enabled", "synictimer needs synic, which is disabled"),
    (domain(features={"hyperv": {"tlbflush": {"direct": {}}, "vapic": {"enabled": False}}}), f"{P}.features.hyperv.vapic.enabled", "tlbflush.direct needs vapic, which is disabled"),
    (domain(features={"hyperv": {"synictimer": {}}}, clock={"timer": {"hyperv": {"present": False}}}), f"{P}.features.hyperv.synictimer", "synictimer needs the timer clock.timer.hyperv, which is disabled"),
    (domain(features={"hyperv": {"spinlocks": {"spinlocks": 4095}}}), f"{P}.features.hyperv.spinlocks.spinlocks", "must be 4096 or more"),
    (domain(features={"hyperv": {"vendorid": {"vendorid": "thirteen char"}}}), f"{P}.features.hyperv.vendorid.vendorid", "expected 1 to 12 ASCII characters, none of them a comma, found 'thirteen char'"),
    (domain(features={"hyperv": {"vendorid": {"vendorid": "a,b"}}}), f"{P}.features.hyperv.vendorid.vendorid", "expected 1 to 12 ASCII characters, none of them a comma, found 'a,b'"),
    (domain(ioThreadsPolicy="supplementalPool"), f"{P}.ioThreads.supplementalPoolThreadCount", "the number of iothreads needs to be set and positive for the dedicated policy"),
    # Disks.
    (disk(disk={}, cdrom={}), DISK, f"{DISK} can only have a single target type defined"),
    (disk(cdrom={"bus": "virtio"}), f"{DISK}.cdrom.bus", "Bus type virtio is invalid for CD-ROM device"),
    (disk(cdrom={"readonly": False}), f"{DISK}.cdrom.readonly", "a CD-ROM can't be written to; use a disk"),
    (disk(disk={"bus": "sata", "readonly": True}), f"{DISK}.disk.readonly", "sata hard-disks do not support read-only."),
    (disk(disk={"readonly": True}), f"{DISK}.disk.readonly", "sata hard-disks do not support read-only."),
    (disk("pc", disk={"readonly": True}), f"{DISK}.disk.readonly", "ide hard-disks do not support read-only."),
    (disk(disk={"bus": "ide"}), f"{DISK}.disk.bus", "the machine type q35 has no IDE controller; use the bus sata, or the machine type pc"),
    (disk("pc-q35-7.2", cdrom={"bus": "ide"}), f"{DISK}.cdrom.bus", "the machine type pc-q35-7.2 has no IDE controller; use the bus sata, or the machine type pc"),
    (disk(lun={}), f"{DISK}.lun", f"{DISK}.lun can only be mapped to a DataVolume or PersistentVolumeClaim volume."),
    (disk(lun={"bus": "sata"}, source=CLAIM), f"{DISK}.lun.bus", "a LUN needs the bus scsi, found sata"),
    (disk(lun={"reservation": True}, source=CLAIM), f"{DISK}.lun.reservation", NOT_YET),
    (disk(disk={"bus": "scsi", "pciAddress": "0000:01:00.0"}), f"{DISK}.disk.pciAddress", "disk d - setting a PCI address is only possible with bus type virtio."),
    (disk(disk={"bus": "virtio", "pciAddress": "01:00.0"}), f"{DISK}.disk.pciAddress", "disk d has malformed PCI address (01:00.0)."),
    (disk(bootOrder=0), f"{DISK}.bootOrder", f"{DISK} must have a boot order > 0, if supplied"),
    (disk(serial="a b"), f"{DISK}.serial", f"{DISK}.serial must be made up of the following characters [A-Za-z0-9_.+-], if specified"),
    (disk(serial="a" * 257), f"{DISK}.serial", f"{DISK}.serial must be less than or equal to 256 in length, if specified"),
    (disk(dedicatedIOThread=True, disk={"bus": "sata"}), f"{DISK}.dedicatedIOThread", "IOThreads are not supported for disks on a sata bus"),
    (disk(io="native", cache="writeback"), f"{DISK}.io", "native needs cache none, found writeback"),
    (disk(shareable=True, cache="writethrough"), f"{DISK}.cache", "a shareable disk needs cache none, found writethrough"),
    (disk(tag="x"), f"{DISK}.tag", NOT_YET),
    (disk(disk={"bus": "virtio"}, blockSize={"custom": {"logical": 256, "physical": 512}}), f"{DISK}.blockSize.custom.logical", "Provided size of 256 is less than the supported minimum size of 512"),
    (disk(disk={"bus": "virtio"}, blockSize={"custom": {"logical": 512, "physical": 4194304}}), f"{DISK}.blockSize.custom.physical", "Provided size of 4194304 is greater than the supported maximum size of 2097152"),
    (disk(disk={"bus": "virtio"}, blockSize={"custom": {"logical": 512, "physical": 1000}}), f"{DISK}.blockSize.custom.physical", "Provided size of 1000 is not a power of 2"),
    (disk(disk={"bus": "virtio"}, blockSize={"custom": {"logical": 4096, "physical": 512}}), f"{DISK}.blockSize.custom.logical", "Logical size 4096 must be the same or less than the physical size of 512"),
    (disk(blockSize={"custom": {"logical": 4096, "physical": 4096}}), f"{DISK}.blockSize.custom.logical", "Logical size 4096 must be 512 for SATA devices"),
    (disk(disk={"bus": "virtio"}, blockSize={"custom": {"logical": 512, "physical": 512, "discardGranularity": 700}}), f"{DISK}.blockSize.custom.discardGranularity", "700 is not a multiple of the logical size 512"),
    # microvm.
    (disk("microvm", disk={"bus": "sata"}), f"{DISK}.disk.bus", "the machine type microvm has no PCI, so no bus sata; use virtio or scsi"),
    (disk("microvm", cdrom={"bus": "usb"}), f"{DISK}.cdrom.bus", "the machine type microvm has no PCI, so no bus usb; use virtio or scsi"),
    (disk("microvm", floppy={}), f"{DISK}.floppy", "the machine type microvm has no floppy drive"),
    (disk("microvm", disk={"bus": "virtio", "pciAddress": "0000:01:00.0"}), f"{DISK}.disk.pciAddress", MICROVM),
    (card(machine="microvm", model="e1000"), f"{CARD}.model", MICROVM),
    (card(machine="microvm", acpiIndex=1), f"{CARD}.acpiIndex", MICROVM),
    (domain(machine={"type": "microvm"}, devices={"watchdog": {"name": "w"}}), f"{P}.devices.watchdog", MICROVM),
    (domain(machine={"type": "microvm"}, devices={"video": {"type": "vga"}}), f"{P}.devices.video", MICROVM),
    (domain(machine={"type": "microvm"}, devices={"inputs": [{"name": "t", "bus": "usb"}]}), f"{P}.devices.inputs[0].bus", MICROVM),
    # Volumes.
    ({"volumes": [{"name": "A b", "emptyDisk": {"capacity": "1Gi"}}]}, "spec.volumes[0].name", "'A b' is not a DNS-1123 label: 1 to 63 lower case letters, digits or '-', with a letter or digit at both ends"),
    (volume(), "spec.volumes[0]", "spec.volumes[0] must have exactly one source type set"),
    (volume(emptyDisk={"capacity": "1Gi"}, **CLAIM), "spec.volumes[0]", "spec.volumes[0] must have exactly one source type set"),
    (volume(emptyDisk={"capacity": "much"}), "spec.volumes[0].emptyDisk.capacity", "'much' is not a quantity: write a number with a unit, like 64M (64,000,000) or 64Mi (67,108,864)"),
    (volume(emptyDisk={"capacity": "1k"}), "spec.volumes[0].emptyDisk.capacity", "spec.volumes[0].emptyDisk.capacity '1k': must be greater than or equal to 1Mi."),
    (volume(containerDisk={"image": "-v /:/host x"}), "spec.volumes[0].containerDisk.image", "expected the name of an image, found '-v /:/host x'"),
    (volume(containerDisk={"image": "i", "path": "/"}), "spec.volumes[0].containerDisk.path", "spec.volumes[0].containerDisk.path must not point to root"),
    (volume(containerDisk={"image": "i", "path": "/disk/../x"}), "spec.volumes[0].containerDisk.path", "spec.volumes[0].containerDisk.path must be an absolute path to a file without relative components"),
    (volume(containerDisk={"image": "i", "imagePullPolicy": "Often"}), "spec.volumes[0].containerDisk.imagePullPolicy", "expected one of Always, IfNotPresent, Never, found 'Often'"),
    (volume(persistentVolumeClaim={"claimName": "../x"}), "spec.volumes[0].persistentVolumeClaim.claimName", "'../x' is not the name of a PersistentVolumeClaim"),
    (volume(persistentVolumeClaim={"claimName": "c", "hotpluggable": True}), "spec.volumes[0].persistentVolumeClaim.hotpluggable", NOT_YET),
    (volume(ephemeral={"persistentVolumeClaim": {"claimName": ""}}), "spec.volumes[0].ephemeral.persistentVolumeClaim.claimName", "'' is not the name of a PersistentVolumeClaim"),
    (volume(cloudInitNoCloud={}), "spec.volumes[0].cloudInitNoCloud", "spec.volumes[0].cloudInitNoCloud must have at least one userdatasource or one networkdatasource set."),
    (volume(cloudInitNoCloud={"userData": "x", "secretRef": {"name": "s"}}), "spec.volumes[0].cloudInitNoCloud", "spec.volumes[0].cloudInitNoCloud must have only one userdatasource set."),
    (volume(cloudInitNoCloud={"networkData": "x", "networkDataBase64": "eA=="}), "spec.volumes[0].cloudInitNoCloud", "spec.volumes[0].cloudInitNoCloud must have only one networkdatasource set."),
    (volume(cloudInitNoCloud={"userDataBase64": "%%"}), "spec.volumes[0].cloudInitNoCloud.userDataBase64", "spec.volumes[0].cloudInitNoCloud.userDataBase64 is not a valid base64 value."),
    (volume(cloudInitConfigDrive={"networkDataBase64": "abc"}), "spec.volumes[0].cloudInitConfigDrive.networkDataBase64", "spec.volumes[0].cloudInitConfigDrive.networkDataBase64 is not a valid base64 value."),
    (volume(cloudInitNoCloud={"userData": "é" * 1025}), "spec.volumes[0].cloudInitNoCloud.userData", "spec.volumes[0].cloudInitNoCloud userdata exceeds 2048 byte limit. Should use UserDataSecretRef for larger data."),
    (volume(cloudInitNoCloud={"networkDataBase64": "YWFh" * 683}), "spec.volumes[0].cloudInitNoCloud.networkDataBase64", "spec.volumes[0].cloudInitNoCloud networkdata exceeds 2048 byte limit. Should use NetworkDataSecretRef for larger data."),
    (volume(cloudInitNoCloud={"secretRef": {"name": "../s"}}), "spec.volumes[0].cloudInitNoCloud.secretRef.name", "'../s' is not the name of a Secret"),
    # Interfaces and networks.
    ({"networks": [{"name": "n", "pod": {}}]}, "spec.networks[0].name", "spec.networks[0].name 'n' not found."),
    (domain(devices={"interfaces": [{"name": "n", "bridge": {}}]}), f"{CARD}.name", f"{CARD}.name 'n' not found."),
    (card(network={}), "spec.networks[0]", "should have a network type"),
    (card(network={"pod": {}, "multus": {"networkName": "x"}}), "spec.networks[0]", "should have only one network type"),
    (card(network={"multus": {"networkName": ""}}), "spec.networks[0].multus.networkName", "CNI delegating plugin must have a networkName"),
    (card(bridge={}, masquerade={}), CARD, "logical n interface must have exactly one binding method or binding plugin"),
    (card(network={"multus": {"networkName": "x"}}, masquerade={}), f"{CARD}.masquerade", "Masquerade interface only implemented with pod network"),
    (card(network={"multus": {"networkName": "x"}}, passtBinding={}), f"{CARD}.passtBinding", "passt interface only implemented with pod network"),
    (card(macAddress="02:00"), f"{CARD}.macAddress", "interface n has malformed MAC address (02:00)."),
    (card(macAddress="03:00:00:00:00:01"), f"{CARD}.macAddress", "interface n has a multicast MAC address (03:00:00:00:00:01), which no card can have."),
    (card(macAddress="00:00:00:00:00:00"), f"{CARD}.macAddress", "interface n has the null MAC address (00:00:00:00:00:00), which no card can have."),
    (card(masquerade={}, macAddress="02-00-00-00-00-00"), f"{CARD}.macAddress", "The requested MAC address is reserved for the in-pod bridge. Please choose another one."),
    (card(pciAddress="nope"), f"{CARD}.pciAddress", "interface n has malformed PCI address (nope)."),
    (card(ports=[{"port": 0}]), f"{CARD}.ports[0].port", "Port field is mandatory."),
    (card(ports=[{"port": 65536}]), f"{CARD}.ports[0].port", "Port field must be in range 0 < x < 65536."),
    (card(ports=[{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]), f"{CARD}.ports[1].name", "Duplicate name of the port: a"),
    (card(ports=[{"port": 1, "name": "A"}]), f"{CARD}.ports[0].name", "Invalid name of the port: A"),
    (card(acpiIndex=16384), f"{CARD}.acpiIndex", "expected 1 to 16383, found 16384"),
    (card(tag="x"), f"{CARD}.tag", NOT_YET),
    (card(state="absent"), f"{CARD}.state", '"n" interface\'s state "absent" is not supported on default networks'),
    (card(network={"multus": {"networkName": "x"}}, state="absent", bridge=None, masquerade={}), f"{CARD}.state", '"n" interface\'s state "absent" is supported only for bridge binding'),
    (card(dhcpOptions={"privateOptions": [{"option": 223, "value": "x"}]}), f"{CARD}.dhcpOptions.privateOptions[0].option", "provided DHCPPrivateOptions are out of range, must be in range 224 to 254"),
    (card(dhcpOptions={"privateOptions": [{"option": 224, "value": "x"}] * 2}), f"{CARD}.dhcpOptions.privateOptions", "Found Duplicates: you have provided duplicate DHCPPrivateOptions"),
    (card(dhcpOptions={"ntpServers": ["fd00::1"]}), f"{CARD}.dhcpOptions.ntpServers[0]", "NTP servers must be a list of valid IPv4 addresses. Found 'fd00::1'"),
    (card(dhcpOptions={"bootFileName": "x" * 256}), f"{CARD}.dhcpOptions.bootFileName", "a DHCP option has room for 255 bytes"),
    (card(network={"pod": {"vmNetworkCIDR": "10.0.0.0/31"}}), "spec.networks[0].pod.vmNetworkCIDR", "expected an IPv4 network of at most /30, found '10.0.0.0/31'"),
    (card(network={"pod": {"vmNetworkCIDR": "fd00::/64"}}), "spec.networks[0].pod.vmNetworkCIDR", "expected an IPv4 network of at most /30, found 'fd00::/64'"),
    (card(network={"pod": {"vmIPv6NetworkCIDR": "fd00::"}}), "spec.networks[0].pod.vmIPv6NetworkCIDR", "expected an IPv6 network of at most /126, found 'fd00::'"),
    # Devices.
    (domain(devices={"video": {"type": "vga"}, "autoattachGraphicsDevice": False}), f"{P}.devices.video", "Video configuration is not allowed when autoattachGraphicsDevice is set to false"),
    (domain(devices={"sound": {"name": ""}}), f"{P}.devices.sound.name", "Sound device requires a name field."),
    (domain(devices={"inputs": [{"name": "t"}, {"name": "t"}]}), f"{P}.devices.inputs[1].name", "t is there twice"),
    # Pod.
    ({"hostname": "a.b"}, "spec.hostname", "spec.hostname does not conform to the kubernetes DNS_LABEL rules : 'a.b'"),
    ({"subdomain": "a_b"}, "spec.subdomain", "spec.subdomain does not conform to the kubernetes DNS_SUBDOMAIN rules : 'a_b'"),
    ({"terminationGracePeriodSeconds": -1}, "spec.terminationGracePeriodSeconds", "must be 0 or more, found -1"),
    ({"dnsPolicy": "Mine"}, "spec.dnsPolicy", "DNSPolicy: Mine is not supported, valid values: ['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None']"),
    ({"dnsPolicy": "None"}, "spec.dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None"),
    ({"livenessProbe": {}}, "spec.livenessProbe", "spec.livenessProbe must have exactly one probe type set"),
    ({"startStrategy": "Paused", "livenessProbe": {"exec": {}}}, "spec.startStrategy", "either spec.startStrategy or spec.livenessProbe should be provided.Pausing VMI with LivenessProbe is not supported"),
    ({"readinessProbe": {"exec": {"command": ["a"]}, "guestAgentPing": {}}}, "spec.readinessProbe", "spec.readinessProbe must have exactly one probe type set"),
    ({"readinessProbe": {"exec": {"command": []}}}, "spec.readinessProbe.exec.command", "spec.readinessProbe.exec.command must be a list of the program and its arguments"),
    ({"readinessProbe": {"guestAgentPing": {}, "timeoutSeconds": "5"}}, "spec.readinessProbe.timeoutSeconds", "spec.readinessProbe.timeoutSeconds must be a whole number, 0 or more"),
    ({**domain(devices={"autoattachPodInterface": False}), "livenessProbe": {"tcpSocket": {"port": 1}}}, "spec.livenessProbe.tcpSocket", "spec.livenessProbe.tcpSocket is only allowed if the Pod Network is attached"),
    # Access credentials.
    (credential({}), CREDENTIAL, f"{CREDENTIAL} must have exactly one access credential type set"),
    (credential({"sshPublicKey": key({"noCloud": {}}), "userPassword": {"source": {}, "propagationMethod": {}}}), CREDENTIAL, f"{CREDENTIAL} must have exactly one access credential type set"),
    (credential({"userPassword": {"source": {"secret": {"secretName": "s"}}, "propagationMethod": {}}}), f"{CREDENTIAL}.userPassword.propagationMethod", f"{CREDENTIAL} must have exactly one propagationMethod set"),
    (credential({"userPassword": {"source": {}, "propagationMethod": {"qemuGuestAgent": {}}}}), f"{CREDENTIAL}.userPassword.source", f"{CREDENTIAL} must have exactly one source set"),
    (credential({"sshPublicKey": key({})}), f"{CREDENTIAL}.sshPublicKey.propagationMethod", f"{CREDENTIAL} must have exactly one propagationMethod set"),
    (credential({"sshPublicKey": key({"qemuGuestAgent": {}})}), f"{CREDENTIAL}.sshPublicKey.propagationMethod.qemuGuestAgent.users", f"{CREDENTIAL}.sshPublicKey.propagationMethod.qemuGuestAgent.users requires at least one user to be present in the users list"),
    (credential({"sshPublicKey": key({"noCloud": {}})}), f"{CREDENTIAL}.sshPublicKey.propagationMethod", f"{CREDENTIAL} requires a noCloud volume to exist when the noCloud propagationMethod is in use."),
    (credential({"sshPublicKey": key({"configDrive": {}})}), f"{CREDENTIAL}.sshPublicKey.propagationMethod", f"{CREDENTIAL} requires a configDrive volume to exist when the configDrive propagationMethod is in use."),
    (credential({"sshPublicKey": key({"noCloud": {}}, secret="../s")}), f"{CREDENTIAL}.sshPublicKey.source.secret.secretName", f"{CREDENTIAL}.sshPublicKey.source.secret.secretName: '../s' is not a DNS-1123 subdomain"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "path", "message"), REFUSED, ids=lambda v: v if isinstance(v, str) else ""
)
def test_refused(spec: Any, path: str, message: str) -> None:
    assert (path, message) in said(spec)


ONE = {"name": "n", "pod": {}}


def test_lists_have_a_limit() -> None:
    many = {"volumes": [{"name": f"v{i}", "emptyDisk": {"capacity": "1Gi"}} for i in range(257)]}
    assert said(many) == [
        ("spec.volumes", "spec.volumes list exceeds the 256 element limit in length")
    ]


def test_things_that_must_be_unique() -> None:
    cards: Any = [
        {"name": n, "bridge": {}, "acpiIndex": 3, "bootOrder": 1} for n in ("n", "m", "n")
    ]
    networks = [ONE, {"name": "m", "pod": {}}, ONE]
    found = said({"domain": {"devices": {"interfaces": cards}}, "networks": networks})
    where = "spec.domain.devices.interfaces"
    assert found == [
        ("spec.networks[2].name", 'Network with name "n" already exists, every network must have a unique name'),
        (f"{where}[2].name", "Only one interface can be connected to one specific network"),
        (f"{where}[1].acpiIndex", "3 is already the index of another interface"),
        (f"{where}[2].acpiIndex", "3 is already the index of another interface"),
        ("spec.networks[1]", "more than one interface is connected to a pod network in spec.networks"),
        ("spec.networks[2]", "more than one interface is connected to a pod network in spec.networks"),
        (f"{where}[1].bootOrder", f"Boot order for {where}[1] already set for a different device."),
        (f"{where}[2].bootOrder", f"Boot order for {where}[2] already set for a different device."),
    ]  # fmt: skip


def test_multus_default_networks() -> None:
    def found(*networks: Any) -> set[str]:
        cards: Any = [{"name": n["name"], "bridge": {}} for n in networks]
        spec = {"domain": {"devices": {"interfaces": cards}}, "networks": list(networks)}
        return {message for _, message in said(spec)}

    default = {"networkName": "x", "default": True}
    assert found(ONE, {"name": "m", "multus": default}) == {
        "Pod network cannot be defined when Multus default network is defined"
    }
    assert found({"name": "a", "multus": default}, {"name": "b", "multus": default}) == {
        "Multus CNI should only have one default network"
    }
    assert found(ONE, {"name": "m", "multus": {"networkName": "x"}}) == set()


def test_a_pc_has_four_ide_drives_and_two_floppies() -> None:
    disks = [{"name": f"i{i}"} for i in range(5)] + [
        {"name": f"f{i}", "floppy": {}} for i in range(3)
    ]
    volumes = [{"name": d["name"], "emptyDisk": {"capacity": "2Mi"}} for d in disks]
    spec = {"domain": {"machine": {"type": "pc"}, "devices": {"disks": disks}}, "volumes": volumes}
    assert said(spec) == [
        ("spec.domain.devices.disks[4]", "IDE has room for 4 drives; use another bus"),
        ("spec.domain.devices.disks[7]", "there is room for 2 floppy drives"),
    ]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        domain(memory={}, resources={"limits": {"memory": "64M"}}),
        domain(memory={"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}}),
        domain(memory={"hugepages": {"pageSize": "1Gi"}}),
        domain(memory={"guest": "9E"}),
        domain(machine={"type": "pc-i440fx-7.2"}, cpu={"sockets": 2, "cores": 128, "threads": 2}),
        domain(firmware={"bootloader": {"efi": {}}}, features={"smm": {}}),
        domain(clock={"timezone": "America/Argentina/Buenos_Aires"}),
        domain(features={"hyperv": {"ipi": {"enabled": False}, "vpindex": {"enabled": False}}}),
        disk(disk={"bus": "usb", "readonly": True}),
        disk(lun={}, source=CLAIM),
        disk("pc", disk={"bus": "sata"}),
        disk("microvm", cdrom={}),
        disk(floppy={}, serial="a.b+c_d-e", shareable=True, cache="none"),
        disk(io="native"),
        disk(disk={"bus": "virtio", "pciAddress": "0000:81:1f.7"}, dedicatedIOThread=True),
        volume(cloudInitNoCloud={"userData": "x" * 2048, "networkDataSecretRef": {"name": "n"}}),
        volume(cloudInitNoCloud={"userDataBase64": "aGVs\nbG8="}),
        volume(containerDisk={"image": "registry:5000/a/b@sha256:00", "path": "/disk/x.qcow2"}),
        card(masquerade={}, macAddress="52-54-00-12-34-56", ports=[{"port": 65535, "name": "a-1"}]),
        card(network={"pod": {"vmNetworkCIDR": "10.0.2.5/30", "vmIPv6NetworkCIDR": "fd00::/126"}}),
        card(network={"multus": {"networkName": "x"}}, state="absent"),
        card(acpiIndex=16383, dhcpOptions={"privateOptions": [{"option": 254, "value": ""}]}),
        {"subdomain": "a.b", "terminationGracePeriodSeconds": 0, "startStrategy": "Paused"},
        {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"]}},
    ],
)
def test_accepted(spec: Any) -> None:
    assert said(spec) == []
    uuid = "5d307ca9-b3ef-428c-8861-06e72d69f223"
    assert validate_vmi(apply_defaults(instance(spec), new_uuid=lambda: uuid)) == ()


def test_the_prefix_is_where_the_user_wrote_it() -> None:
    causes = validate_vmi(instance(disk(disk={"readonly": True})), "spec.template.spec")
    assert [cause.path for cause in causes] == [
        "spec.template.spec.domain.devices.disks[0].disk.readonly"
    ]


@SLOW
@given(...)
def test_any_instance_is_judged(vmi: VirtualMachineInstance) -> None:
    for cause in validate_vmi(vmi):
        assert cause.path.startswith("spec.")
        assert cause.message


@SLOW
@given(...)
def test_any_machine_is_judged(vm: VirtualMachine) -> None:
    for cause in validate_vm(vm):
        assert cause.path.startswith("spec.")
