"""May a launcher pod be evicted? (pure; reference: KubeVirt's, section 9.7)

An eviction ends a guest, so its instance has the last word: by its strategy it lets go, or it is marked as to be moved
(``status.evacuationNodeName``) and whoever evicts is told to come again (429, as for a PodDisruptionBudget). qvirt moves no
guests itself yet; with the strategy External somebody else does.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model
from qvirt_crds.status import FINAL
from qvirt_crds.vm import EvictionStrategy

_DOMAIN: Final = "kubevirt.io/domain"


class Verdict(Model, frozen=True, kw_only=True):
    """What to answer."""

    #: Why not; empty: it may.
    denial: str = ""
    #: The node to write into the instance's status; empty: nothing.
    mark: str = ""


ALLOWED: Final = Verdict()


def instance_of(pod: JsonObject) -> str:
    """The name of the instance that a pod runs; empty: it runs none that an eviction could hurt."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    if (metadata.get("labels") or {}).get("kubevirt.io") != "virt-launcher":
        return ""
    if metadata.get("deletionTimestamp") or status.get("phase") in FINAL:
        return ""
    return str((metadata.get("annotations") or {}).get(_DOMAIN, ""))


def decide_eviction(pod: JsonObject, vmi: JsonObject, default: EvictionStrategy) -> Verdict:
    """For a pod and its instance.

    :param default: of the cluster, for an instance that says nothing.
    """
    status = vmi.get("status") or {}
    if not _runs(pod, vmi) or status.get("phase") in FINAL:
        return ALLOWED
    match _strategy(vmi, default):
        case "None":
            return ALLOWED
        case "LiveMigrateIfPossible" if not _migratable(status):
            return ALLOWED
        case "LiveMigrate" if not _migratable(status):
            name = vmi["metadata"]["name"]
            return Verdict(
                denial=f"VMI {name} is configured with an eviction strategy but is not live-migratable"
            )
        case _:
            return _marked(pod, vmi)


def _marked(pod: JsonObject, vmi: JsonObject) -> Verdict:
    metadata, status = vmi["metadata"], vmi.get("status") or {}
    node = status.get("nodeName") or pod.get("spec", {}).get("nodeName", "")
    said = f'Eviction triggered evacuation of VMI "{metadata["namespace"]}/{metadata["name"]}"'
    if node and status.get("evacuationNodeName") == node:
        return Verdict(denial=f"Evacuation in progress: {said}")
    return Verdict(denial=said, mark=node)


def _runs(pod: JsonObject, vmi: JsonObject) -> bool:
    """Whether the pod is this very instance's."""
    uid = vmi["metadata"]["uid"]
    return any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences") or ())


def _strategy(vmi: JsonObject, default: EvictionStrategy) -> str:
    said = vmi.get("spec", {}).get("evictionStrategy")
    known: tuple[Literal["None"], ...] = get_args(EvictionStrategy)
    return str(said) if said in known else default


def _migratable(status: JsonObject) -> bool:
    return any(
        condition.get("type") == "LiveMigratable" and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )
