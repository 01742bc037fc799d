"""``spec.volumes`` and ``spec.networks`` (reference: KubeVirt v1 API, Volume and Network)."""

from __future__ import annotations

import msgspec

from qvirt_crds.meta import LocalObjectReference
from qvirt_crds.model import Model
from qvirt_crds.quantity import Quantity


class ContainerDisk(Model, frozen=True, kw_only=True):
    """The one file under ``/disk`` of a container image (raw or qcow2), never written to."""

    image: str
    image_pull_secret: str = ""
    path: str = ""
    image_pull_policy: str = ""


class PersistentVolumeClaim(Model, frozen=True, kw_only=True):
    """A claim: ``disk.img`` on its file system, or its block device."""

    claim_name: str
    read_only: bool = False
    hotpluggable: bool = False


class Ephemeral(Model, frozen=True, kw_only=True):
    """Copy-on-write over a claim; what the guest writes is dropped when it stops."""

    persistent_volume_claim: PersistentVolumeClaim


class EmptyDisk(Model, frozen=True, kw_only=True):
    """A fresh disk that lives as long as the VM runs."""

    capacity: Quantity


class CloudInit(Model, frozen=True, kw_only=True):
    """Data for cloud-init, plain, as base64 or from a Secret (keys ``userdata``/``userData`` and so on)."""

    user_data: str = ""
    user_data_base64: str = msgspec.field(default="", name="userDataBase64")
    secret_ref: LocalObjectReference | None = None
    network_data: str = ""
    network_data_base64: str = msgspec.field(default="", name="networkDataBase64")
    network_data_secret_ref: LocalObjectReference | None = None


class Volume(Model, frozen=True, kw_only=True):
    """A source of bytes; exactly one kind."""

    name: str
    container_disk: ContainerDisk | None = None
    persistent_volume_claim: PersistentVolumeClaim | None = None
    ephemeral: Ephemeral | None = None
    empty_disk: EmptyDisk | None = None
    cloud_init_no_cloud: CloudInit | None = None
    cloud_init_config_drive: CloudInit | None = None


class PodNetwork(Model, frozen=True, kw_only=True):
    """The pod's own network; the CIDRs are those of the masquerade binding."""

    vm_network_cidr: str = msgspec.field(default="", name="vmNetworkCIDR")
    vm_ipv6_network_cidr: str = msgspec.field(default="", name="vmIPv6NetworkCIDR")


class MultusNetwork(Model, frozen=True, kw_only=True):
    """A network attachment definition, ``[namespace/]name``."""

    network_name: str
    default: bool = False


class Network(Model, frozen=True, kw_only=True):
    """What an interface of the same name is plugged into; exactly one kind."""

    name: str
    pod: PodNetwork | None = None
    multus: MultusNetwork | None = None
