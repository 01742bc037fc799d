"""``kubevirt.io/v1`` KubeVirt: the settings of an installation, as far as qvirt has a use for them (`configuration`).

Fields of KubeVirt's that are not here are kept by the API server and reported in the object's status, never ignored.
"""

from __future__ import annotations

from typing import Final, Literal

from qvirt_crds.meta import JsonObject, ObjectMeta
from qvirt_crds.model import Empty, Model
from qvirt_crds.vm import EvictionStrategy

#: KubeVirt's conventional name and namespace; qvirt obeys the one object of its own namespace.
NAME: Final = "kubevirt"
NAMESPACE: Final = "kubevirt"


class DeveloperConfiguration(Model, frozen=True, kw_only=True):
    """How guests share a node, and which features are on."""

    #: Never ask a node for KVM: guests are emulated, which is slow and works everywhere.
    use_emulation: bool = False
    #: Features to turn on, e.g. ImageVolume. One that qvirt has no use for is reported in the status.
    feature_gates: tuple[str, ...] = ()
    #: Features to turn off.
    disabled_feature_gates: tuple[str, ...] = ()
    #: Percent of its requested memory that a guest sees: at 150, one of 1.5Gi requests 1Gi. 100 when unset.
    memory_overcommit: int | None = None
    #: vCPUs that share one CPU of a node when a guest requests none, 10 when unset.
    cpu_allocation_ratio: int | None = None


class NetworkConfiguration(Model, frozen=True, kw_only=True):
    """What a guest that asks for no network gets."""

    #: bridge when unset.
    default_network_interface: Literal["bridge", "masquerade"] | None = None
    #: false refuses the bridge binding on the pod network.
    permit_bridge_interface_on_pod_network: bool | None = None


class VirtualMachineOptions(Model, frozen=True, kw_only=True):
    """Of every guest."""

    #: No copy of guests' serial consoles in the logs of their pods, unless a VM asks for it.
    disable_serial_console_log: Empty | None = None


class ArchSpecificConfiguration(Model, frozen=True, kw_only=True):
    """Of guests of one architecture."""

    #: Machine type of guests that name none, q35 when unset.
    machine_type: str = ""


class ArchConfiguration(Model, frozen=True, kw_only=True):
    """By architecture."""

    amd64: ArchSpecificConfiguration | None = None


class KubeVirtConfiguration(Model, frozen=True, kw_only=True):
    """Defaults and limits of guests."""

    developer_configuration: DeveloperConfiguration | None = None
    network: NetworkConfiguration | None = None
    virtual_machine_options: VirtualMachineOptions | None = None
    architecture_configuration: ArchConfiguration | None = None
    #: Older name of architectureConfiguration.amd64.machineType.
    machine_type: str = ""
    #: CPU model of guests that name none, host-model when unset.
    cpu_model: str = ""
    #: What an eviction does to guests that say nothing of it, None when unset.
    eviction_strategy: EvictionStrategy | None = None
    #: Of the launcher's image, IfNotPresent when unset.
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    #: Factor on the memory that a launcher pod has beyond its guest's, e.g. "1.5".
    additional_guest_memory_overhead_ratio: str = ""
    #: Stage: changes of a running VirtualMachine wait for its restart.
    vm_rollout_strategy: Literal["Stage", "LiveUpdate"] | None = None


class KubeVirtSpec(Model, frozen=True, kw_only=True):
    """What an installation shall be like."""

    configuration: KubeVirtConfiguration | None = None


class KubeVirt(Model, frozen=True, kw_only=True):
    """The settings of this installation of qvirt: there is one, and it is named kubevirt in the namespace kubevirt."""

    api_version: Literal["kubevirt.io/v1", "kubevirt.io/v1alpha3"]
    kind: Literal["KubeVirt"]
    metadata: ObjectMeta
    spec: KubeVirtSpec
    status: JsonObject | None = None
