"""VMI -> launcher pod, as a plain dict (pure, held by golden files).

The pod passes PodSecurity `restricted`: a non-root user, no capabilities, no host paths, no service-account token, a
read-only root file system. What needs privilege is done by virt-handler from outside. Labels, annotations and names are
KubeVirt's (reference: its launcher pod, v1.9), as clients select on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Final

from qvirt_crds import pod_layout
from qvirt_crds.names import API_V1, RUNTIME_UID
from qvirt_crds.vm import VirtualMachineInstance, VirtualMachineInstanceSpec
from qvirt_pods import containers, resources
from qvirt_pods.containers import Object
from qvirt_pods.placement import node_selector
from qvirt_pods.settings import Settings

#: KubeVirt's, for a spec that says nothing; and what a pod gets beyond the guest's grace period.
DEFAULT_GRACE_SECONDS: Final = 30
POD_GRACE_MARGIN: Final = 30

#: A paused guest's pod drops out of Services by it; virt-controller writes it.
READINESS_GATE: Final = "kubevirt.io/virtual-machine-unpaused"

#: Annotation: bytes beyond the guest's RAM.
OVERHEAD: Final = "kubevirt.io/memory-overhead-bytes"
#: The label with the UID of the pod's instance.
CREATED_BY: Final = "kubevirt.io/created-by"
#: The characters of Kubernetes' own generated names.
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
#: What the API server keeps of a generateName, before 5 generated characters.
_BASE_LENGTH: Final = 58
_NOT_CARRIED: Final = ("kubectl.kubernetes.io",)

#: Scratch space that every launcher pod has.
_OWN: Final = {"run": pod_layout.RUN_DIR, "tmp": "/tmp"}


def launcher_pod(
    vmi: VirtualMachineInstance, settings: Settings, *, block: Collection[str] = ()
) -> Object:
    """The pod for a defaulted VMI.

    :param block: names of the claims whose volumes are block devices.
    :raise SpecError: something that a pod can't give.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(vmi, settings),
        "spec": _spec(vmi, settings, block),
    }


def pod_name(name: str, uid: str) -> str:
    """The name of an instance's pod: it looks generated, and is the same each time.

    So the API server itself refuses a second pod, whoever asks for it: a controller that saw an old state, or two
    that both believe that they lead.
    """
    number = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big")
    suffix = ""
    for _ in range(5):
        number, digit = divmod(number, len(_ALPHABET))
        suffix += _ALPHABET[digit]
    return f"virt-launcher-{name}-"[:_BASE_LENGTH] + suffix


def instance_id(name: str) -> str:
    """The label ``vmi.kubevirt.io/id``: the name, or 54 characters of it and a hash where it is too long for a label."""
    return pod_layout.label(name)


def hostname(vmi: VirtualMachineInstance) -> str:
    """The guest's and the pod's hostname."""
    return vmi.spec.hostname or vmi.metadata.name.split(".")[0][:63].rstrip("-")


def _metadata(vmi: VirtualMachineInstance, settings: Settings) -> Object:
    name = vmi.metadata.name
    carried = {
        key: value
        for key, value in vmi.metadata.annotations.items()
        if not key.startswith(_NOT_CARRIED)
    }
    return {
        "name": pod_name(name, vmi.metadata.uid),
        "generateName": f"virt-launcher-{name}-",
        "namespace": vmi.metadata.namespace,
        "labels": {
            **vmi.metadata.labels,
            "kubevirt.io": "virt-launcher",
            CREATED_BY: vmi.metadata.uid,
            "vm.kubevirt.io/name": hostname(vmi),
            "vmi.kubevirt.io/id": instance_id(name),
        },
        "annotations": {
            **carried,
            "kubevirt.io/domain": name,
            "kubectl.kubernetes.io/default-container": "compute",
            OVERHEAD: str(resources.overhead(vmi.spec, settings)),
        },
        "ownerReferences": [
            {
                "apiVersion": API_V1,
                "kind": "VirtualMachineInstance",
                "name": name,
                "uid": vmi.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _spec(vmi: VirtualMachineInstance, settings: Settings, block: Collection[str]) -> Object:
    spec = vmi.spec
    grace = spec.termination_grace_period_seconds
    volumes = list(_volumes(spec, settings, block))
    mounts = [mount for _, some in volumes for mount in some]
    pod: Object = {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "hostname": hostname(vmi),
        "terminationGracePeriodSeconds": (DEFAULT_GRACE_SECONDS if grace is None else grace)
        + POD_GRACE_MARGIN,
        "readinessGates": [{"conditionType": READINESS_GATE}],
        "securityContext": {
            "runAsUser": RUNTIME_UID,
            "runAsGroup": RUNTIME_UID,
            "runAsNonRoot": True,
            "fsGroup": RUNTIME_UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": node_selector(spec, emulated=settings.use_emulation),
        "containers": [containers.compute(vmi, settings, mounts)],
        "volumes": [volume for volume, _ in volumes],
    }
    images = containers.images(spec)
    if images and not settings.image_volumes:
        _add_holders(pod, images, settings)
    if containers.logs_console(spec, settings):
        _add_console_log(pod, settings)
    if secrets := sorted({image.secret for image in images} - {""}):
        pod["imagePullSecrets"] = [{"name": name} for name in secrets]
    return pod | _scheduling(spec)


def _add_holders(pod: Object, images: tuple[containers.Image, ...], settings: Settings) -> None:
    """A sidecar for each image. The launcher opens its files through /proc/<pid of the sidecar>/root: nothing is copied."""
    name = _unused("holder", {volume["name"] for volume in pod["volumes"]})
    mount = {"name": name, "mountPath": pod_layout.HOLDER_DIR}
    wanted = resources.holder_requirements(pod["containers"][0]["resources"])
    pod["shareProcessNamespace"] = True
    # The launcher's end of the holders' pipe is there.
    pod["containers"][0]["volumeMounts"].append(mount | {"readOnly": True})
    pod["initContainers"] = [containers.injector(settings, mount, wanted)]
    pod["containers"] += [containers.holder(image, mount, wanted) for image in images]
    pod["volumes"].append({"name": name, "emptyDir": {}})


def _add_console_log(pod: Object, settings: Settings) -> None:
    """A sidecar with the guest's serial console as its output."""
    name = _unused("console", {volume["name"] for volume in pod["volumes"]})
    mount = {"name": name, "mountPath": pod_layout.CONSOLE_DIR}
    compute = pod["containers"][0]
    wanted = resources.holder_requirements(compute["resources"])
    compute["volumeMounts"].append(mount)
    pod["containers"].append(containers.console_log(settings, mount, wanted))
    pod["volumes"].append({"name": name, "emptyDir": {}})


def _scheduling(spec: VirtualMachineInstanceSpec) -> Object:
    """What the user says of placement and DNS, handed on as it is."""
    said: Object = {
        "subdomain": spec.subdomain,
        "affinity": spec.affinity,
        "tolerations": list(spec.tolerations),
        "topologySpreadConstraints": list(spec.topology_spread_constraints),
        "schedulerName": spec.scheduler_name,
        "priorityClassName": spec.priority_class_name,
        "dnsPolicy": spec.dns_policy,
        "dnsConfig": spec.dns_config,
    }
    return {key: value for key, value in said.items() if value}


def _volumes(
    spec: VirtualMachineInstanceSpec, settings: Settings, block: Collection[str]
) -> Iterator[tuple[Object, list[Object]]]:
    """Each volume of the pod with its mounts in compute. The spec's volumes keep their names."""
    taken = {volume.name for volume in spec.volumes}
    for name, path in _OWN.items():
        own = _unused(name, taken)
        yield {"name": own, "emptyDir": {}}, [{"name": own, "mountPath": path}]
    for volume in spec.volumes:
        claim = pod_layout.claim_of(volume)
        if claim is not None:
            source = {"claimName": claim.claim_name, "readOnly": claim.read_only}
            where = (
                {"devicePath": pod_layout.block_device(volume.name)}
                if claim.claim_name in block
                else {"mountPath": pod_layout.claim_dir(volume.name)}
            )
            pod_volume = {"name": volume.name, "persistentVolumeClaim": source}
            yield pod_volume, [{"name": volume.name, **where}]
        for secret in pod_layout.secrets_of(volume):
            own = _unused(pod_layout.label(secret.pod_volume), taken)
            mount = {"name": own, "mountPath": secret.path, "readOnly": True}
            yield {"name": own, "secret": {"secretName": secret.secret}}, [mount]
    for secret in pod_layout.credentials_of(spec):
        # A Secret's name may have dots, a volume's may not.
        own = _unused(pod_layout.label(secret.pod_volume.replace(".", "-")), taken)
        mount = {"name": own, "mountPath": secret.path, "readOnly": True}
        yield {"name": own, "secret": {"secretName": secret.secret}}, [mount]
    if settings.image_volumes:
        yield from _image_volumes(spec, taken)


def _image_volumes(
    spec: VirtualMachineInstanceSpec, taken: set[str]
) -> Iterator[tuple[Object, list[Object]]]:
    for image in containers.images(spec):
        kernel = image.mark == pod_layout.KERNEL_BOOT
        name = _unused("kernel-boot", taken) if kernel else image.mark
        path = pod_layout.KERNEL_BOOT_DIR if kernel else pod_layout.image_dir(image.mark)
        source = {"reference": image.image, "pullPolicy": image.policy}
        yield (
            {"name": name, "image": source},
            [{"name": name, "mountPath": path, "readOnly": True}],
        )


def _unused(name: str, taken: set[str]) -> str:
    """The name, or one like it that no other volume has; it is taken then."""
    found, number = name, 0
    while found in taken:
        number += 1
        found = f"{name[:60]}-{number}"
    taken.add(found)
    return found
