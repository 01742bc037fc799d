"""What virt-controller watches. An event says "look at this object" and nothing of what has happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from qvirt_kube import watching as door
from qvirt_kube.client import Kube, Object
from qvirt_operator.known import INTERESTS, PODS, Known
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
#: Seconds that the first list of pods may take.
_FIRST_LIST: Final = 60.0


@asynccontextmanager
async def watching(
    kube: Kube, known: Known, nudge: Nudge, namespace: str | None
) -> AsyncIterator[None]:
    """Nudge while inside, and keep what is known up to date.

    :param namespace: only this one; None: the cluster.
    """

    def tell(item: Object, _gone: bool) -> None:
        for key in keys(item, known):
            nudge(key)

    async with door.watching(kube, INTERESTS, tell, namespace, mirrors=known.mirrors):
        yield


async def caught_up(kube: Kube, known: Known, namespace: str | None) -> None:
    """Wait until the pods are known that are there: each instance that is looked at before would have its own asked for."""
    await door.caught_up(kube, PODS, known.mirrors[PODS], namespace, _FIRST_LIST)


def keys(body: Any, known: Known) -> tuple[Key, ...]:
    """Whom an event concerns: the object, and whoever controls it."""
    metadata, kind = body.get("metadata", {}), body.get("kind", "")
    namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
    found = []
    if kind in _KINDS:
        found.append(Key(kind=_KINDS[kind], namespace=namespace, name=name))
        if kind == "VirtualMachineInstance" and known.machine(namespace, name):
            # The VM of the same name, also before it is the owner. One that we are told of later is looked at then.
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
