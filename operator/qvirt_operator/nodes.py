"""Nodes whose virt-handler is silent: closed for new guests, and their instances looked at."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import Conflict, KubeError, NotFound
from qvirt_operator import node_health, paths
from qvirt_operator.events import Recorder
from qvirt_operator.known import Known
from qvirt_operator.work import Key

_log = logging.getLogger(__name__)

#: Seconds between two looks, up to a fifth more (KubeVirt's rhythm).
PERIOD: Final = 60.0
_NODE_LABEL: Final = "kubevirt.io/nodeName"


class Nodes:
    """:param nudge: makes the instance be looked at."""

    def __init__(
        self,
        kube: Kube,
        known: Known,
        nudge: Callable[[Key], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._known = known
        self._nudge = nudge
        self._now = now
        self._recorder = Recorder(kube, "virtualmachine-controller", now)

    async def run(self, period: float = PERIOD) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except KubeError as error:
                _log.warning("nodes are not looked at: %s", error)
            except Exception:  # noqa: BLE001  an odd node must not stop the care for the others
                _log.exception("looking at nodes: this is a bug in qvirt")
            await asyncio.sleep(period * (1 + 0.2 * random.random()))

    async def look(self) -> None:
        """Once.

        :raise KubeError: nothing could be seen.
        """
        nodes = await self._kube.list_metadata(paths.nodes(), resourceVersion="0")
        for node in node_health.to_close(nodes, self._now()):
            await self._close(node)
        metas = (instance["metadata"] for instance in self._known.instances())
        where = [(on, meta) for meta in metas if (on := meta.get("labels", {}).get(_NODE_LABEL))]
        lost = node_health.lost({node for node, _ in where}, nodes, self._now())
        for node, metadata in where:
            if node in lost:
                # Whose pod is gone fails; see `instances`.
                self._nudge(Key(kind="vmi", namespace=metadata["namespace"], name=metadata["name"]))

    async def _close(self, node: Object) -> None:
        name = node["metadata"]["name"]
        patch, event = node_health.closing(node)
        try:
            await self._kube.patch(paths.nodes(name), patch)
        except (Conflict, NotFound) as error:
            _log.info("node %s: looked at again later: %s", name, error)
            return
        _log.warning("node %s: %s; it gets no new guests", name, event.message)
        await self._recorder.record({**node, "apiVersion": "v1", "kind": "Node"}, event)


async def responsive(kube: Kube, name: str, now: datetime) -> bool:
    """Whether a node is there and its virt-handler has been heard of lately.

    :raise KubeError: no telling.
    """
    try:
        node = await kube.get(paths.nodes(name))
    except NotFound:
        return False
    return node_health.responsive(node, now)
