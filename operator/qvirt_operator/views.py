"""What virt-controller looks at in objects of the API server. Unlike the contract's structs these ignore what they do not know.

Nothing that somebody wrote into a status may stop a deletion, so a status that makes no sense reads as an empty one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from qvirt_crds.status import FINAL

Object = dict[str, Any]
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class View(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Frozen; unknown fields are ignored."""


_V = TypeVar("_V", bound=View)


class OwnerReference(View, frozen=True, kw_only=True):
    """meta/v1 OwnerReference."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Meta(View, frozen=True, kw_only=True):
    """meta/v1 ObjectMeta."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def deleting(self) -> bool:
        return self.deletion_timestamp is not None

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages the object."""
        return next((owner for owner in self.owner_references if owner.controller), None)


class Condition(View, frozen=True, kw_only=True):
    """A condition of any object."""

    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


class Terminated(View, frozen=True, kw_only=True):
    """How a container ended."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class Waiting(View, frozen=True, kw_only=True):
    """Why a container does not run yet."""

    reason: str = ""
    message: str = ""


class ContainerState(View, frozen=True, kw_only=True):
    """One of these, or none of them yet."""

    waiting: Waiting | None = None
    running: Object | None = None
    terminated: Terminated | None = None


class ContainerStatus(View, frozen=True, kw_only=True):
    """One container of a pod."""

    name: str
    ready: bool = False
    image: str = ""
    state: ContainerState = ContainerState()


class PodStatus(View, frozen=True, kw_only=True):
    """core/v1 PodStatus."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    qos_class: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class Container(View, frozen=True, kw_only=True):
    """core/v1 Container."""

    name: str
    image: str = ""


class PodSpec(View, frozen=True, kw_only=True):
    """core/v1 PodSpec."""

    node_name: str = ""
    containers: tuple[Container, ...] = ()


class Pod(View, frozen=True, kw_only=True):
    """A launcher pod."""

    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def finished(self) -> bool:
        """All of its containers have ended for good."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def compute(self) -> ContainerStatus | None:
        """The container with launcher and QEMU, once the kubelet has said something of it."""
        return next((c for c in self.status.container_statuses if c.name == "compute"), None)

    @property
    def launcher_image(self) -> str:
        """What the compute container is made of."""
        return next((c.image for c in self.spec.containers if c.name == "compute"), "")

    @property
    def ended(self) -> Terminated | None:
        """How the compute container ended."""
        return self.compute.state.terminated if self.compute else None

    def condition(self, kind: str) -> Condition | None:
        return next((c for c in self.status.conditions if c.type == kind), None)


class Transition(View, frozen=True, kw_only=True):
    """One change of an instance's phase."""

    phase: str = ""
    phase_transition_timestamp: str | None = None


class VmiStatus(View, frozen=True, kw_only=True):
    """Of a VirtualMachineInstance; `raw` in `Vmi` has the rest."""

    phase: str = ""
    reason: str = ""
    node_name: str = ""
    virtual_machine_revision_name: str = ""
    conditions: tuple[Condition, ...] = ()
    phase_transition_timestamps: tuple[Transition, ...] = ()
    migration_state: Object | None = None


class Vmi:
    """A VirtualMachineInstance, with its status decoded and as it is."""

    def __init__(self, data: Object) -> None:
        self.data = data
        self.metadata = convert(data.get("metadata") or {}, Meta)
        self.raw: Object = status_of(data)
        self.status = lenient(self.raw, VmiStatus)

    @property
    def phase(self) -> str:
        return self.status.phase

    @property
    def final(self) -> bool:
        return self.phase in FINAL

    @property
    def has_run(self) -> bool:
        """Whether the guest has ever been Running."""
        return any(t.phase == "Running" for t in self.status.phase_transition_timestamps)

    def condition(self, kind: str) -> Condition | None:
        return next((c for c in self.status.conditions if c.type == kind), None)


def convert(data: object, kind: type[_V]) -> _V:
    """Decode what the API server has checked (metadata, pods)."""
    return msgspec.convert(_without_nulls(data), kind)


def lenient(data: Object, kind: type[_V]) -> _V:
    """Decode what anybody may have written: each field, and each item of a list, that makes no sense reads as absent."""
    found: Object = {}
    for field in msgspec.structs.fields(kind):
        value = _without_nulls(data.get(field.encode_name))
        if isinstance(value, list):
            value = [item for item in value if _makes_sense([item], field.type)]
        if value is not None and _makes_sense(value, field.type):
            found[field.encode_name] = value
    return msgspec.convert(found, kind)


def _makes_sense(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def status_of(data: Object) -> Object:
    """The status as it is; an object in any case."""
    status = data.get("status")
    return status if isinstance(status, dict) else {}


def timestamp(moment: datetime) -> str:
    """As Kubernetes writes it, in whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str | None) -> datetime:
    """What `timestamp` wrote; one that makes no sense is long ago."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return _LONG_AGO
    return found if found.tzinfo is not None else _LONG_AGO


def _without_nulls(data: object) -> object:
    """Kubernetes reads null as absent."""
    match data:
        case dict():
            return {key: _without_nulls(value) for key, value in data.items() if value is not None}
        case list():
            return [_without_nulls(value) for value in data]
        case _:
            return data
