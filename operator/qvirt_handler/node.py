"""This node as a place for guests: its labels and heartbeat (names and rhythm are KubeVirt's)."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from qvirt_crds.names import HEARTBEAT, SCHEDULABLE
from qvirt_handler import node_facts
from qvirt_handler.writer import now
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError

_log = logging.getLogger(__name__)

#: virt-controller takes a node for lost after 5 minutes without one.
_PERIOD_SECONDS: Final = 60.0
_JITTER: Final = 0.2
_RETRY_SECONDS: Final = 5.0
_FAREWELL_SECONDS: Final = 5.0


async def beat(kube: Kube, node: str, report: str) -> None:
    """Say at once and then every minute that this node takes guests, and once what it can give them. Never returns.

    :param report: path of the launcher image's (`qvirt_crds.node_report`).
    """
    labelled = False
    while True:
        seconds = _PERIOD_SECONDS * (1 + _JITTER * random.random())
        try:
            await _mark(kube, node, schedulable=True)
            if not labelled:
                await _label(kube, node, report)
                labelled = True
        except KubeError as error:
            _log.warning("node %s: no heartbeat: %s", node, error)
            seconds = _RETRY_SECONDS
        await asyncio.sleep(seconds)


async def leave(kube: Kube, node: str) -> None:
    """No new guests from now on: nobody would start them. Those that run stay."""
    try:
        async with asyncio.timeout(_FAREWELL_SECONDS):
            await _mark(kube, node, schedulable=False)
    except (KubeError, TimeoutError) as error:
        _log.warning("node %s: stays marked as schedulable: %s", node, error)


async def _mark(kube: Kube, node: str, *, schedulable: bool) -> None:
    meta = {
        "labels": {SCHEDULABLE: "true" if schedulable else "false"},
        "annotations": {HEARTBEAT: now()},
    }
    await kube.patch(_path(node), {"metadata": meta})


async def _label(kube: Kube, node: str, report: str) -> None:
    want = await asyncio.to_thread(lambda: node_facts.labels(node_facts.read(report)))
    meta = (await kube.get(_path(node)))["metadata"]
    patch = node_facts.changes(meta.get("labels") or {}, want)
    if patch:
        await kube.patch(_path(node), {"metadata": {"labels": patch}})


def _path(node: str) -> str:
    return f"/api/v1/nodes/{node}"
