"""This node as a place for guests: its label and heartbeat (names and rhythm are KubeVirt's)."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from qvirt_handler.writer import now
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError

_log = logging.getLogger(__name__)

SCHEDULABLE: Final = "kubevirt.io/schedulable"
HEARTBEAT: Final = "kubevirt.io/heartbeat"
#: virt-controller takes a node for lost after 5 minutes without one.
_PERIOD_SECONDS: Final = 60.0
_JITTER: Final = 0.2
_RETRY_SECONDS: Final = 5.0
_FAREWELL_SECONDS: Final = 5.0


async def beat(kube: Kube, node: str) -> None:
    """Say at once and then every minute that this node takes guests. Never returns."""
    while True:
        seconds = _PERIOD_SECONDS * (1 + _JITTER * random.random())
        try:
            await _mark(kube, node, schedulable=True)
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
    await kube.patch(f"/api/v1/nodes/{node}", {"metadata": meta})
