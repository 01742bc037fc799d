"""All that is observed of one VirtualMachineInstance, for the deciders."""

from __future__ import annotations

from datetime import datetime

from qvirt_operator.decisions import Failure
from qvirt_operator.views import Condition, Object, Pod, Vmi


class Seen:
    """All that is observed of one instance.

    :param pods: its launcher pods.
    :param missing_claims: claims that its volumes name and that are not there.
    :param facts: status fields that follow from the spec alone, at first.
    :param hand_over: status fields of volumes that virt-handler and clients find from the hand-over on.
    :param migratable: conditions that say whether the guest can move.
    :param lost_node: the node that it was on, if that is gone or silent.
    :param failure: why the spec makes no pod, or what went wrong when this was decided on a moment ago.
    """

    def __init__(
        self,
        vmi: Vmi,
        now: datetime,
        *,
        pods: tuple[Pod, ...] = (),
        missing_claims: tuple[str, ...] = (),
        facts: Object | None = None,
        hand_over: Object | None = None,
        migratable: tuple[Condition, ...] = (),
        failure: Failure | None = None,
        lost_node: str = "",
    ) -> None:
        self.vmi = vmi
        self.now = now
        self.pods = pods
        self.missing_claims = missing_claims
        self.facts = facts or {}
        self.hand_over = hand_over or {}
        self.migratable = migratable
        self.failure = failure
        self.lost_node = lost_node

    @property
    def pod(self) -> Pod | None:
        """The pod that counts: one that is not finished before one that is."""
        return min(self.pods, key=lambda pod: (pod.finished, pod.metadata.name), default=None)
