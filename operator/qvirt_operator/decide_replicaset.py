"""What to do for a VirtualMachineInstanceReplicaSet (pure): how many instances to create, and which to delete."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from qvirt_crds.model import Model
from qvirt_crds.replicaset import VirtualMachineInstanceReplicaSetSpec
from qvirt_crds.selectors import as_text, matches
from qvirt_operator.conditions import condition, merge_patch, merged
from qvirt_operator.decisions import Event, Failure, Target
from qvirt_operator.views import Condition, Object, Vmi, timestamp

#: Created or deleted in one step; the next step follows at once.
BURST: Final = 10


class Seen:
    """All that is observed of one replica set.

    :param uid: its UID.
    :param status: as it is.
    :param vmis: instances of its namespace that its selector matches, or that it owns.
    :param failure: what went wrong when this was decided on a moment ago.
    """

    def __init__(
        self,
        uid: str,
        spec: VirtualMachineInstanceReplicaSetSpec,
        status: Object,
        vmis: Iterable[Vmi],
        now: datetime,
        *,
        deleting: bool = False,
        failure: Failure | None = None,
    ) -> None:
        self.uid = uid
        self.spec = spec
        self.status = status
        self.vmis = tuple(vmis)
        self.now = now
        self.deleting = deleting
        self.failure = failure

    @property
    def owned(self) -> tuple[Vmi, ...]:
        return tuple(vmi for vmi in self.vmis if self._owns(vmi))

    @property
    def orphans(self) -> tuple[Vmi, ...]:
        """Instances that match and that nobody controls."""
        return tuple(
            vmi
            for vmi in self.vmis
            if vmi.metadata.controller is None
            and not vmi.metadata.deleting
            and not vmi.final
            and matches(self.spec.selector, vmi.metadata.labels)
        )

    def _owns(self, vmi: Vmi) -> bool:
        owner = vmi.metadata.controller
        return owner is not None and owner.uid == self.uid


class ReplicaSetDecision(Model, frozen=True, kw_only=True):
    """What is to be done."""

    #: (name, uid) of instances to take over.
    adopt: tuple[tuple[str, str], ...] = ()
    create: int = 0
    delete: tuple[Target, ...] = ()
    #: A merge patch of the status.
    status: Object = {}
    events: tuple[Event, ...] = ()


def decide_replicaset(seen: Seen) -> ReplicaSetDecision:
    """The next step. A replica set that is being deleted leaves its instances to the garbage collector."""
    if seen.deleting:
        return ReplicaSetDecision()
    adopted = tuple((vmi.metadata.name, vmi.metadata.uid) for vmi in seen.orphans)
    active = [vmi for vmi in seen.owned if is_active(vmi)]
    finished = [vmi for vmi in seen.owned if vmi.final and not vmi.metadata.deleting]
    wanted = 1 if seen.spec.replicas is None else seen.spec.replicas
    # Those that were just adopted are counted from the next look on.
    missing = wanted - len(active) - len(adopted)
    idle = seen.spec.paused or seen.failure is not None
    surplus = sorted(active, key=_worth)[: max(-missing, 0)]
    doomed = [] if idle else [*finished, *surplus][:BURST]
    return ReplicaSetDecision(
        adopt=() if idle else adopted,
        create=0 if idle else min(max(missing, 0), BURST),
        delete=tuple(Target(name=v.metadata.name, uid=v.metadata.uid) for v in doomed),
        status=_status(seen, active),
        events=_events(seen),
    )


def is_active(vmi: Vmi) -> bool:
    """It runs, or will; one that is on its way out does not count."""
    ready = vmi.condition("Ready")
    leaving = ready is not None and ready.status == "False" and ready.reason == "PodTerminating"
    return not vmi.final and not vmi.metadata.deleting and not leaving


def _worth(vmi: Vmi) -> tuple[bool, bool, float]:
    """Those that do not serve yet go first, then the youngest."""
    created = vmi.metadata.creation_timestamp
    return _ready(vmi), vmi.phase == "Running", -created.timestamp() if created else 0.0


def _ready(vmi: Vmi) -> bool:
    ready = vmi.condition("Ready")
    return ready is not None and ready.status == "True"


def _status(seen: Seen, active: list[Vmi]) -> Object:
    status: Object = {
        "replicas": len(active),
        "readyReplicas": sum(map(_ready, active)),
        "labelSelector": as_text(seen.spec.selector),
    }
    before = seen.status.get("conditions")
    status["conditions"] = merged(before, _conditions(seen), timestamp(seen.now))
    return merge_patch(seen.status, status)


def _conditions(seen: Seen) -> dict[str, Condition | None]:
    failure = seen.failure
    failed = condition("ReplicaFailure", True, failure.reason, failure.message) if failure else None
    paused = condition("ReplicaPaused", True, "Paused", "Controller got paused")
    return {
        "ReplicaFailure": failed,
        "ReplicaPaused": paused if seen.spec.paused else None,
    }


def _events(seen: Seen) -> tuple[Event, ...]:
    before = seen.status.get("conditions")
    kinds = (
        [c.get("type") for c in before if isinstance(c, dict)] if isinstance(before, list) else []
    )
    was_paused = "ReplicaPaused" in kinds
    if seen.spec.paused and not was_paused:
        return (Event(reason="SuccessfulPaused", message="Paused"),)
    if was_paused and not seen.spec.paused:
        return (Event(reason="SuccessfulResumed", message="Resumed"),)
    return ()
