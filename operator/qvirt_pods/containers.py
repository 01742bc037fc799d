"""The containers of a launcher pod and what they mount (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from qvirt_crds import pod_layout
from qvirt_crds.domain import KernelBootContainer
from qvirt_crds.meta import JsonObject
from qvirt_crds.names import RUNTIME_UID
from qvirt_crds.vm import VirtualMachineInstance, VirtualMachineInstanceSpec
from qvirt_pods import resources
from qvirt_pods.settings import Settings

Object = dict[str, Any]

#: PodSecurity `restricted` and a bit more.
RESTRICTED: Final[Object] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": RUNTIME_UID,
    "runAsGroup": RUNTIME_UID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
#: The guest boots before it can answer (KubeVirt's addition to every probe).
_PROBE_DELAY: Final = 10


class Image:
    """An OCI image that holds files for the guest: a containerDisk's, or the one of kernelBoot."""

    def __init__(self, mark: str, container: str, image: str, policy: str, secret: str) -> None:
        self.mark = mark
        self.container = container
        self.image = image
        self.policy = policy or "IfNotPresent"
        self.secret = secret


def images(spec: VirtualMachineInstanceSpec) -> tuple[Image, ...]:
    """All images of a spec that hold files for the guest."""
    found = [
        Image(
            volume.name,
            pod_layout.label(f"volume{volume.name}"),
            volume.container_disk.image,
            volume.container_disk.image_pull_policy,
            volume.container_disk.image_pull_secret,
        )
        for volume in spec.volumes
        if volume.container_disk is not None
    ]
    kernel = kernel_image(spec)
    if kernel is not None:
        image = Image(
            pod_layout.KERNEL_BOOT,
            "kernel-boot",
            kernel.image,
            kernel.image_pull_policy,
            kernel.image_pull_secret,
        )
        found.append(image)
    return tuple(found)


def kernel_image(spec: VirtualMachineInstanceSpec) -> KernelBootContainer | None:
    """The image that the guest's kernel comes from, if it is booted directly."""
    firmware = spec.domain.firmware
    return firmware.kernel_boot.container if firmware and firmware.kernel_boot else None


def compute(vmi: VirtualMachineInstance, settings: Settings, mounts: list[Object]) -> Object:
    """The container with launcher and QEMU.

    :param mounts: of the spec's volumes; those with a ``devicePath`` are block devices.
    """
    spec = vmi.spec
    pipe = ("--console-pipe", pod_layout.CONSOLE_PIPE) if logs_console(spec, settings) else ()
    container: Object = {
        "name": "compute",
        "image": settings.launcher_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [
            "virt-launcher",
            "--pod",
            *("--run-dir", pod_layout.RUN_DIR),
            *("--namespace", vmi.metadata.namespace),
            *("--name", vmi.metadata.name),
            *pipe,
        ],
        "securityContext": RESTRICTED,
        "resources": resources.requirements(spec, settings),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount for mount in mounts if "mountPath" in mount],
    }
    if devices := [mount for mount in mounts if "devicePath" in mount]:
        container["volumeDevices"] = devices
    ports = [
        {"containerPort": port.port, "protocol": port.protocol or "TCP"}
        | ({"name": port.name} if port.name else {})
        for interface in spec.domain.devices.interfaces
        for port in interface.ports
    ]
    if ports:
        container["ports"] = ports
    return container | dict(_probes(spec))


def logs_console(spec: VirtualMachineInstanceSpec, settings: Settings) -> bool:
    """Whether what the guest says on its serial console is logged: the VM's own word counts, else the cluster's."""
    devices = spec.domain.devices
    if devices.autoattach_serial_console is False:
        return False
    wanted = devices.log_serial_console
    return settings.log_serial_console if wanted is None else wanted


def console_log(settings: Settings, mount: Object, wanted: resources.Requirements) -> Object:
    """The serial console for ``kubectl logs``; ends with the launcher."""
    return {
        "name": "guest-console-log",
        "image": settings.launcher_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": pod_layout.console_log_command(),
        "securityContext": RESTRICTED,
        "resources": wanted,
        "volumeMounts": [mount | {"readOnly": True}],
    }


def injector(settings: Settings, mount: Object, wanted: resources.Requirements) -> Object:
    """Puts a static program into an empty volume, as a disk's image has nothing that could run."""
    return {
        "name": "container-disk-holder",
        "image": settings.launcher_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": pod_layout.injector_command(),
        "securityContext": RESTRICTED,
        "resources": wanted,
        "volumeMounts": [mount],
    }


def holder(image: Image, mount: Object, wanted: resources.Requirements) -> Object:
    """Keeps an image's files reachable through its process's root, for as long as the pod lives."""
    return {
        "name": image.container,
        "image": image.image,
        "imagePullPolicy": image.policy,
        "command": pod_layout.holder_command(image.mark),
        "securityContext": RESTRICTED,
        "resources": wanted,
        "volumeMounts": [mount | {"readOnly": True}],
    }


def _probes(spec: VirtualMachineInstanceSpec) -> Iterator[tuple[str, JsonObject]]:
    """The kubelet's own probes reach the guest at the pod's address; those inside of the guest go through its agent."""
    for name, probe in (
        ("livenessProbe", spec.liveness_probe),
        ("readinessProbe", spec.readiness_probe),
    ):
        if probe is None:
            continue
        delay = probe.get("initialDelaySeconds", 0)
        yield name, _in_compute(probe) | {"initialDelaySeconds": delay + _PROBE_DELAY}


def _in_compute(probe: JsonObject) -> JsonObject:
    """The probe as the kubelet can carry it out; one inside of the guest as KubeVirt has it, as a program in compute."""
    if resources.looks_inside(probe):
        seconds = probe.get("timeoutSeconds") or 1
        program = ["virt-probe", "--timeoutSeconds", str(seconds)]
        if "guestAgentPing" in probe:
            program.append("--guestAgentPing")
        else:
            command, *arguments = probe["exec"]["command"]
            program += ["--command", command, "--", *arguments]
        rest = {key: value for key, value in probe.items() if key != "guestAgentPing"}
        # One second more, for virt-launcher to tell that the guest's time is over.
        return rest | {"exec": {"command": program}, "timeoutSeconds": seconds + 1}
    return probe
