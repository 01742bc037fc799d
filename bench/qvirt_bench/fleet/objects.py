"""What is created in great numbers."""

from __future__ import annotations

import uuid
from typing import Final

import msgspec

from qvirt_bench.fleet.api import Object
from qvirt_crds.defaults import apply_defaults
from qvirt_crds.first_status import first_status
from qvirt_crds.names import FOREGROUND_DELETE
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_handler.writer import now
from qvirt_pods.pods import launcher_pod
from qvirt_pods.settings import Settings

#: Where they are.
NAMESPACE: Final = "scale"


def bare_pod(name: str) -> Object:
    """The baseline: one container, nothing else."""
    containers = [{"name": "pause", "image": "pause"}]
    return {"metadata": {"name": name}, "spec": {"containers": containers}}


def ownerless_launcher(name: str) -> Object:
    """An instance's pod, without what makes virt-controller look at it and the kubelet wait for virt-controller."""
    vmi = _defaulted(name)
    metadata = msgspec.structs.replace(vmi.metadata, namespace=NAMESPACE, uid=name)
    made = launcher_pod(
        msgspec.structs.replace(vmi, metadata=metadata), Settings(launcher_image="launcher")
    )
    del made["spec"]["readinessGates"]
    annotations = made["metadata"]["annotations"]
    return {**made, "metadata": {"name": name, "annotations": annotations}}


def instance(name: str) -> Object:
    """As virt-api's webhooks leave it."""
    full = _defaulted(name)
    return {**msgspec.to_builtins(full), "status": first_status(full, now())}


def _defaulted(name: str) -> VirtualMachineInstance:
    """A guest with a disk from an image, a cloud-init seed and the pod's network."""
    devices = {
        "disks": [
            {"name": "root", "disk": {"bus": "virtio"}},
            {"name": "seed", "disk": {"bus": "virtio"}},
        ],
        "interfaces": [{"name": "default", "masquerade": {}}],
    }
    vmi = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "finalizers": [FOREGROUND_DELETE]},
        "spec": {
            "domain": {"memory": {"guest": "64Mi"}, "devices": devices},
            "networks": [{"name": "default", "pod": {}}],
            "volumes": [
                {"name": "root", "containerDisk": {"image": "guest"}},
                {"name": "seed", "cloudInitNoCloud": {"userData": "#cloud-config\n"}},
            ],
        },
    }
    told = msgspec.convert(vmi, VirtualMachineInstance)
    return apply_defaults(told, new_uuid=lambda: str(uuid.uuid4()))
