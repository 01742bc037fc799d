"""What virt-controller watches. An event says "look at this object" and nothing of what has happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from qvirt_crds.names import GROUP
from qvirt_kube import watching as door
from qvirt_kube.client import Kube, Object
from qvirt_kube.watching import Interest
from qvirt_operator.work import Key, Kind

Nudge = Callable[[Key], None]

_KINDS: Final[dict[str, Kind]] = {
    "VirtualMachine": "vm",
    "VirtualMachineInstance": "vmi",
    "VirtualMachineInstanceReplicaSet": "vmirs",
    "VirtualMachineReplicaSet": "vmrs",
    "KubeVirt": "kv",
}
_DOMAIN: Final = "kubevirt.io/domain"
INTERESTS: Final = (
    Interest(group=GROUP, plural="virtualmachines"),
    Interest(group=GROUP, plural="virtualmachineinstances"),
    Interest(group=GROUP, plural="virtualmachineinstancereplicasets"),
    Interest(group=GROUP, version="v1alpha1", plural="virtualmachinereplicasets"),
    Interest(group=GROUP, plural="kubevirts"),
    # Only launcher pods, filtered by the API server: our watch costs what VMs cost, not what the cluster holds.
    Interest(plural="pods", label="kubevirt.io=virt-launcher"),
)


@asynccontextmanager
async def watching(kube: Kube, nudge: Nudge, namespace: str | None) -> AsyncIterator[None]:
    """Nudge while inside.

    :param namespace: only this one; None: the cluster.
    """

    def tell(item: Object, _gone: bool) -> None:
        for key in keys(item):
            nudge(key)

    async with door.watching(kube, INTERESTS, tell, namespace):
        yield


def keys(body: Any) -> tuple[Key, ...]:
    """Whom an event concerns: the object, and whoever controls it."""
    metadata, kind = body.get("metadata", {}), body.get("kind", "")
    namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
    found = []
    if kind in _KINDS:
        found.append(Key(kind=_KINDS[kind], namespace=namespace, name=name))
        if kind == "VirtualMachineInstance":
            # The VM of the same name, also before it is the owner.
            found.append(Key(kind="vm", namespace=namespace, name=name))
    found += [
        Key(kind=_KINDS[owner["kind"]], namespace=namespace, name=owner["name"])
        for owner in metadata.get("ownerReferences", ())
        if owner.get("controller") and owner.get("kind") in _KINDS
    ]
    if domain := metadata.get("annotations", {}).get(_DOMAIN):
        # A pod that lost its owner by an orphaning deletion.
        found.append(Key(kind="vmi", namespace=namespace, name=domain))
    return tuple(dict.fromkeys(found))
