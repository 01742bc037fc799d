"""Writing about VMIs to the API server: status with the resourceVersion that it was decided on, and Events."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from qvirt_crds.meta import JsonObject
from qvirt_crds.names import GROUP
from qvirt_handler.status import Notice, Written
from qvirt_kube.client import Kube
from qvirt_kube.mirror import whole

_COMPONENT: Final = "virt-handler"
#: Of an Event's name, before the part that makes it unique.
_LONGEST_NAME: Final = 230
#: Of an Event's message (the API server's limit is 1024 bytes).
_LONGEST_MESSAGE: Final = 1000


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Writer:
    """:param node: the name of this node."""

    def __init__(self, kube: Kube, node: str) -> None:
        self._kube = kube
        self._node = node

    async def read(self, vmi: JsonObject) -> JsonObject:
        """The VMI as it is now.

        :raises KubeError: `NotFound` when it is gone.
        """
        return whole(await self._kube.get(_path(vmi)))

    async def write(self, vmi: JsonObject, written: Written) -> JsonObject:
        """Carry out a decision that was made on ``vmi``; returns the VMI after it.

        :raises KubeError: `Conflict` when somebody else wrote in between: decide again.
        """
        meta = vmi["metadata"]
        # The resourceVersion keeps us from writing over others, the uid from writing into another VMI of that name.
        version = {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
        patch = {"metadata": version, "status": written.changes}
        return whole(await self._kube.patch(_path(vmi), patch))

    async def tell(self, vmi: JsonObject, notice: Notice) -> None:
        """Post an Event.

        :raises KubeError: it could not be posted.
        """
        meta = vmi["metadata"]
        stamp = now()
        name = f"{meta['name'][:_LONGEST_NAME].rstrip('-.')}.{time.time_ns():x}"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": vmi["apiVersion"],
                "kind": vmi["kind"],
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
            },
            "type": "Warning" if notice.warning else "Normal",
            "reason": notice.reason,
            "message": notice.message[:_LONGEST_MESSAGE],
            "source": {"component": _COMPONENT, "host": self._node},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        await self._kube.create(f"/api/v1/namespaces/{meta['namespace']}/events", body)


def _path(vmi: JsonObject) -> str:
    meta = vmi["metadata"]
    return f"/apis/{GROUP}/v1/namespaces/{meta['namespace']}/virtualmachineinstances/{meta['name']}"
