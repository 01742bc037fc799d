"""What `defaults.apply_defaults` fills in, and why: the source of ``docs/defaults.md``, and of a test that each is true."""

from __future__ import annotations

from typing import Final

from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model


class Default(Model, frozen=True, kw_only=True):
    """One rule: with `given` merged into an otherwise minimal instance, `path` holds `value`."""

    path: str
    value: object
    reason: str
    given: JsonObject = {}


class Unset(Model, frozen=True, kw_only=True):
    """A field that stays as the user left it, and who decides then."""

    path: str
    meaning: str


def _domain(**members: object) -> JsonObject:
    return {"spec": {"domain": members}}


def _device(**members: object) -> JsonObject:
    return _domain(devices=members)


def _disk(machine: str, **target: object) -> JsonObject:
    return {
        "spec": {
            "domain": {
                "machine": {"type": machine},
                "devices": {"disks": [{"name": "d", **target}]},
            },
            "volumes": [{"name": "d", "emptyDisk": {"capacity": "1Gi"}}],
        }
    }


def _image(name: str) -> JsonObject:
    return {"spec": {"volumes": [{"name": "d", "containerDisk": {"image": name}}]}}


_CARD: Final[JsonObject] = {
    "spec": {
        "domain": {
            "devices": {"interfaces": [{"name": "n", "masquerade": {}, "ports": [{"port": 80}]}]}
        },
        "networks": [{"name": "n", "pod": {}}],
    }
}
_KUBEVIRT: Final = "KubeVirt's"
_DISKS: Final = "spec.domain.devices.disks[0]"

DEFAULTS: Final[tuple[Default, ...]] = (
    Default(path="spec.architecture", value="amd64", reason="the only one there is yet"),
    Default(
        path="spec.evictionStrategy",
        value="None",
        reason=f"{_KUBEVIRT}; the KubeVirt object's `evictionStrategy` if it says one",
    ),
    Default(
        path="spec.domain.machine.type",
        value="q35",
        reason=f"{_KUBEVIRT}: PCI Express, AHCI and OVMF with Secure Boot need it",
    ),
    Default(
        path="spec.domain.resources.requests.cpu",
        value="2",
        given=_domain(resources={"limits": {"cpu": "2"}}),
        reason=f"{_KUBEVIRT}, and Kubernetes': who only limits, requests as much",
    ),
    Default(
        path="spec.domain.memory.guest",
        value="64M",
        given=_domain(resources={"requests": {"memory": "64M"}, "limits": {"memory": "1Gi"}}),
        reason=f"{_KUBEVIRT}: the request is what the guest is sure to have",
    ),
    Default(
        path="spec.domain.memory.guest",
        value="1Gi",
        given=_domain(resources={"limits": {"memory": "1Gi"}}),
        reason=f"{_KUBEVIRT}, without a request",
    ),
    Default(
        path="spec.domain.memory.guest",
        value="2Mi",
        given=_domain(memory={"hugepages": {"pageSize": "2Mi"}}),
        reason=f"{_KUBEVIRT}, with nothing but huge pages asked for",
    ),
    Default(
        path="spec.domain.cpu.sockets",
        value=3,
        given=_domain(resources={"limits": {"cpu": "2500m"}}),
        reason=f"{_KUBEVIRT}, with no topology at all: the CPU limit, else the request, rounded up; sockets, because they are what can be plugged",
    ),
    Default(path="spec.domain.cpu.sockets", value=1, reason="one vCPU when nothing says more"),
    Default(path="spec.domain.cpu.cores", value=1, reason=_KUBEVIRT),
    Default(path="spec.domain.cpu.threads", value=1, reason=_KUBEVIRT),
    Default(
        path="spec.domain.cpu.model",
        value="host-model",
        reason=f"{_KUBEVIRT}: all that the host's CPU can do",
    ),
    Default(
        path="spec.domain.firmware.uuid",
        value="(a new UUID)",
        reason=f"{_KUBEVIRT} for an instance. The instance of a VirtualMachine has the UUID that KubeVirt derives from its name, so that it stays the same machine over restarts",
    ),
    Default(
        path="spec.domain.clock.timer.rtc.present",
        value=True,
        given=_domain(clock={"timer": {"rtc": {}}}),
        reason=f"{_KUBEVIRT}, for each timer that is named",
    ),
    Default(
        path="spec.domain.clock.timer.hyperv.present",
        value=True,
        given=_domain(features={"hyperv": {"synictimer": {}}}),
        reason="QEMU refuses `hv-stimer` without `hv-time`",
    ),
    Default(
        path="spec.domain.features.acpi.enabled",
        value=True,
        reason=f"{_KUBEVIRT}: the guest is stopped by its ACPI power button",
    ),
    Default(
        path="spec.domain.features.smm.enabled",
        value=True,
        given=_domain(features={"smm": {}}),
        reason=f"{_KUBEVIRT}, for each feature that is named",
    ),
    Default(
        path="spec.domain.features.hyperv.synic.enabled",
        value=True,
        given=_domain(features={"hyperv": {"synictimer": {}}}),
        reason=f"{_KUBEVIRT}: synictimer needs synic and vpindex; synic, tlbflush and ipi need vpindex; evmcs and tlbflush.direct need vapic",
    ),
    Default(
        path="spec.domain.features.hyperv.spinlocks.spinlocks",
        value=4096,
        given=_domain(features={"hyperv": {"spinlocks": {}}}),
        reason=_KUBEVIRT,
    ),
    Default(
        path="spec.networks[0]",
        value={"name": "default", "pod": {}},
        reason=f"{_KUBEVIRT}, with neither networks nor interfaces and `autoattachPodInterface` not false: a guest is on the pod's network as a container is",
    ),
    Default(
        path="spec.domain.devices.interfaces[0]",
        value={"name": "default", "model": "virtio", "bridge": {}},
        reason=f"{_KUBEVIRT}, with the same: the guest owns the pod's address. For v1alpha1, too, as its last release (v0.6.0) had it; v0.3.0's e1000 is a driver that small guests lack",
    ),
    Default(
        path="spec.domain.devices.interfaces[0].model",
        value="virtio",
        given=_CARD,
        reason=f"{_KUBEVIRT}: the fastest",
    ),
    Default(
        path="spec.domain.devices.interfaces[0].ports[0].protocol",
        value="TCP",
        given=_CARD,
        reason=f"{_KUBEVIRT}, and Kubernetes'",
    ),
    Default(
        path=_DISKS,
        value={"name": "d", "disk": {"bus": "sata"}},
        given={"spec": {"volumes": [{"name": "d", "emptyDisk": {"capacity": "1Gi"}}]}},
        reason=f"{_KUBEVIRT}: a volume that no disk names is attached, after those that are named",
    ),
    Default(
        path=f"{_DISKS}.disk.bus",
        value="sata",
        given=_disk("q35"),
        reason=f"{_KUBEVIRT}: every guest has a driver for it",
    ),
    Default(
        path=f"{_DISKS}.disk.bus",
        value="ide",
        given=_disk("pc"),
        reason="v1alpha1's, for machine types other than q35: what the board has",
    ),
    Default(
        path=f"{_DISKS}.disk.bus",
        value="virtio",
        given=_disk("microvm"),
        reason="the board has nothing else",
    ),
    Default(
        path=f"{_DISKS}.lun.bus",
        value="scsi",
        given=_disk("q35", lun={}),
        reason="KubeVirt says sata, on which a LUN can't be passed through",
    ),
    Default(
        path=f"{_DISKS}.cdrom.bus", value="sata", given=_disk("q35", cdrom={}), reason=_KUBEVIRT
    ),
    Default(
        path=f"{_DISKS}.cdrom.bus",
        value="scsi",
        given=_disk("microvm", cdrom={}),
        reason="a CD-ROM can't be on virtio, and the board has nothing else",
    ),
    Default(
        path=f"{_DISKS}.cdrom.readonly", value=True, given=_disk("q35", cdrom={}), reason=_KUBEVIRT
    ),
    Default(
        path=f"{_DISKS}.cdrom.tray", value="closed", given=_disk("q35", cdrom={}), reason=_KUBEVIRT
    ),
    Default(
        path=f"{_DISKS}.floppy.tray",
        value="closed",
        given=_disk("pc", floppy={}),
        reason="v1alpha1's",
    ),
    Default(
        path="spec.domain.devices.inputs[0]",
        value={"name": "default-0", "bus": "usb", "type": "tablet"},
        given=_device(autoattachInputDevice=True),
        reason=f"{_KUBEVIRT}, with `autoattachInputDevice`",
    ),
    Default(
        path="spec.domain.devices.inputs[0].bus",
        value="usb",
        given=_device(inputs=[{"name": "t"}]),
        reason=f"{_KUBEVIRT}; virtio on microvm, which has no USB",
    ),
    Default(
        path="spec.domain.devices.inputs[0].type",
        value="tablet",
        given=_device(inputs=[{"name": "t"}]),
        reason=f"{_KUBEVIRT}: the only one",
    ),
    Default(
        path="spec.domain.devices.watchdog.i6300esb.action",
        value="reset",
        given=_device(watchdog={"name": "w"}),
        reason=_KUBEVIRT,
    ),
    Default(
        path="spec.domain.devices.sound.model",
        value="ich9",
        given=_device(sound={"name": "s"}),
        reason=_KUBEVIRT,
    ),
    Default(
        path="spec.volumes[0].containerDisk.imagePullPolicy",
        value="Always",
        given=_image("registry/disk"),
        reason=f"{_KUBEVIRT}, for an image without a tag or with `latest`: it may be another one tomorrow",
    ),
    Default(
        path="spec.volumes[0].containerDisk.imagePullPolicy",
        value="IfNotPresent",
        given=_image("registry:5000/disk:v1"),
        reason=f"{_KUBEVIRT}, for any other",
    ),
)

UNSET: Final[tuple[Unset, ...]] = (
    Unset(path="spec.terminationGracePeriodSeconds", meaning="30 seconds"),
    Unset(path="spec.hostname", meaning="the VM's name up to its first dot"),
    Unset(path="spec.domain.cpu.maxSockets", meaning="no more sockets than `sockets`"),
    Unset(path="spec.domain.firmware.bootloader", meaning="SeaBIOS"),
    Unset(path="spec.domain.firmware.serial", meaning="an empty SMBIOS serial number"),
    Unset(path="spec.domain.clock", meaning="a clock in UTC"),
    Unset(path="spec.domain.rebootPolicy", meaning="a reboot of the guest keeps it running"),
    Unset(path="spec.domain.devices.rng", meaning="no random number device"),
    Unset(path="spec.domain.devices.watchdog", meaning="no watchdog"),
    Unset(path="spec.domain.devices.video", meaning="VGA with SeaBIOS, bochs with OVMF"),
    Unset(path="spec.domain.devices.autoattachGraphicsDevice", meaning="a display adapter and VNC on a socket"),
    Unset(path="spec.domain.devices.autoattachSerialConsole", meaning="a serial console on a socket"),
    Unset(path="spec.domain.devices.autoattachMemBalloon", meaning="a memory balloon"),
    Unset(path="spec.domain.devices.disks[].bootOrder", meaning="with none anywhere, the first disk boots"),
    Unset(path="spec.domain.devices.disks[].cache", meaning="`none` where the file can be opened with O_DIRECT, else `writethrough`"),
    Unset(path="spec.domain.devices.interfaces[].macAddress", meaning="the pod interface's, or a new one"),
)  # fmt: skip


def markdown() -> str:
    """The page ``docs/defaults.md``."""
    lines = [
        "# Defaults",
        "",
        "<!-- Written by crds/generate.py from qvirt_crds/defaults_table.py; a test holds each line to be true. -->",
        "",
        "What an instance gets where its manifest says nothing. Everything here is KubeVirt's unless the reason says",
        "otherwise. `qvirt render --json` and the stored object show the values.",
        "",
        "| Field | With | Default | Reason |",
        "|---|---|---|---|",
    ]
    lines += (
        f"| `{d.path}` | {_code(_given(d.given))} | {_code(d.value)} | {_sentence(d.reason)} |"
        for d in DEFAULTS
    )
    lines += ["", "## Left unset", "", "| Field | Meaning when unset |", "|---|---|"]
    lines += (f"| `{u.path}` | {u.meaning} |" for u in UNSET)
    return "\n".join(lines) + "\n"


def _given(given: JsonObject) -> object:
    """The part of `given` below ``spec.domain`` or ``spec``, for brevity."""
    spec = given.get("spec", {})
    return spec["domain"] if list(spec) == ["domain"] else spec


def _code(value: object) -> str:
    return f"`{_flow(value)}`" if value != {} else ""


def _flow(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{k}: {_flow(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_flow, value)) + "]"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _sentence(reason: str) -> str:
    return "KubeVirt's" if reason == _KUBEVIRT else reason
