"""``kubevirt.io/v1``: VirtualMachine and VirtualMachineInstance."""

from __future__ import annotations

from typing import Literal

from qvirt_crds.credentials import AccessCredential
from qvirt_crds.domain import Domain
from qvirt_crds.meta import JsonObject, ObjectMeta
from qvirt_crds.model import Model
from qvirt_crds.volumes import Network, Volume

RunStrategy = Literal["Always", "RerunOnFailure", "Manual", "Halted", "Once"]
EvictionStrategy = Literal["None", "LiveMigrate", "LiveMigrateIfPossible", "External"]
Architecture = Literal["amd64"]

#: Served with one shape. Without a default, like `kind`: defaults are left out when encoding, these two must be there.
ApiVersion = Literal["kubevirt.io/v1", "kubevirt.io/v1alpha3"]


class VirtualMachineInstanceSpec(Model, frozen=True, kw_only=True):
    """One running guest and the pod around it."""

    domain: Domain
    volumes: tuple[Volume, ...] = ()
    networks: tuple[Network, ...] = ()
    architecture: Architecture | Literal[""] = ""
    hostname: str = ""
    subdomain: str = ""
    dns_policy: str = ""
    dns_config: JsonObject | None = None
    termination_grace_period_seconds: int | None = None
    eviction_strategy: EvictionStrategy | None = None
    start_strategy: Literal["Paused"] | None = None
    node_selector: dict[str, str] = {}
    affinity: JsonObject | None = None
    tolerations: tuple[JsonObject, ...] = ()
    topology_spread_constraints: tuple[JsonObject, ...] = ()
    scheduler_name: str = ""
    priority_class_name: str = ""
    liveness_probe: JsonObject | None = None
    readiness_probe: JsonObject | None = None
    access_credentials: tuple[AccessCredential, ...] = ()


class VirtualMachineInstance(Model, frozen=True, kw_only=True):
    """A guest that runs, or ran. What the launcher is handed."""

    api_version: ApiVersion
    kind: Literal["VirtualMachineInstance"]
    metadata: ObjectMeta
    spec: VirtualMachineInstanceSpec
    status: JsonObject | None = None


class VirtualMachineInstanceTemplate(Model, frozen=True, kw_only=True):
    """What a VirtualMachine makes its instances from."""

    metadata: ObjectMeta = ObjectMeta()
    spec: VirtualMachineInstanceSpec


class VirtualMachineSpec(Model, frozen=True, kw_only=True):
    """Exactly one of running and runStrategy."""

    template: VirtualMachineInstanceTemplate
    running: bool | None = None
    run_strategy: RunStrategy | None = None


class VirtualMachine(Model, frozen=True, kw_only=True):
    """The definition of a guest, whether it runs or not."""

    api_version: ApiVersion
    kind: Literal["VirtualMachine"]
    metadata: ObjectMeta
    spec: VirtualMachineSpec
    status: JsonObject | None = None
