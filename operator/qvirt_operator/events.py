"""Events: one object for each (object, reason, message), counted up when it happens again.

An Event is for people; that one could not be written is logged and stops nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from qvirt_crds.names import DEFAULT_NAMESPACE
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import Conflict, KubeError
from qvirt_operator import paths
from qvirt_operator.decisions import Component, Event
from qvirt_operator.views import timestamp

_log = logging.getLogger(__name__)


class Recorder:
    """Writes events about objects.

    :param component: ``source.component``, by which clients tell who says it.
    """

    def __init__(
        self,
        kube: Kube,
        component: Component,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._component = component
        self._now = now

    async def record(self, about: Object, event: Event) -> None:
        """:param about: the object, with apiVersion, kind and metadata."""
        body = self._event(about, event)
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        try:
            try:
                await self._kube.create(paths.events(namespace), body)
            except Conflict:
                before = await self._kube.get(paths.events(namespace, name))
                again = {
                    "count": before.get("count", 1) + 1,
                    "lastTimestamp": body["lastTimestamp"],
                }
                await self._kube.patch(paths.events(namespace, name), again)
        except KubeError as error:
            _log.warning("event %s about %s is lost: %s", event.reason, name, error)

    def _event(self, about: Object, event: Event) -> Object:
        metadata = about["metadata"]
        uid, now = metadata.get("uid", ""), timestamp(self._now())
        # An Event about an object of the cluster has to live somewhere.
        namespace = metadata.get("namespace", "")
        words = f"{uid}\0{event.type}\0{event.reason}\0{event.message}"
        digest = hashlib.sha256(words.encode()).hexdigest()[:16]
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name'][:236]}.{digest}",
                "namespace": namespace or DEFAULT_NAMESPACE,
            },
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": namespace,
                "name": metadata["name"],
                "uid": uid,
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": event.type,
            "reason": event.reason,
            # The API server takes 1024 bytes.
            "message": event.message.encode()[:1000].decode(errors="ignore"),
            "source": {"component": self._component},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
