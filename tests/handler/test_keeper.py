"""What a keeper does with an API server that says no."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qvirt_handler.errors import LauncherMissing
from qvirt_handler.keeper import Keeper, World
from qvirt_handler.status import Notice, Written
from qvirt_handler.writer import Writer
from qvirt_kube.errors import KubeError, Refused, Unavailable

Object = dict[str, Any]


class Finder:
    def find(self, pod_uid: str) -> Any:
        raise LauncherMissing(pod_uid)

    def belongs(self, process: Any, pod_uid: str) -> bool:  # noqa: ARG002
        raise AssertionError


class Scribe(Writer):
    """Refuses Events as often as it is told to."""

    def __init__(self, *answers: KubeError) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.told: list[str] = []

    async def write(self, vmi: Object, written: Written) -> Object:
        return {**vmi, "status": {**vmi["status"], **written.changes}}

    async def tell(self, vmi: Object, notice: Notice) -> None:  # noqa: ARG002
        self.asked.append(notice.reason)
        if self.answers:
            raise self.answers.pop(0)
        self.told.append(notice.reason)


def vmi() -> Object:
    meta = {"name": "x", "namespace": "n", "uid": "u", "resourceVersion": "1"}
    status = {"phase": "Running", "activePods": {"p": "node"}, "nodeName": "node"}
    return {"apiVersion": "kubevirt.io/v1", "metadata": meta, "spec": {}, "status": status}


async def run(scribe: Scribe, *reasons: str, told: int) -> None:
    """Until so many Events were taken."""
    world = World(node="node", finder=Finder(), writer=scribe, state_dir="/nowhere")
    keeper = Keeper(vmi(), world)
    for reason in reasons:
        keeper.tell(Notice(reason=reason, message=reason))
    task = asyncio.create_task(keeper.run())
    try:
        async with asyncio.timeout(20):
            while len(scribe.told) < told:
                await asyncio.sleep(0.01)
    finally:
        keeper.end()
        await task


async def test_an_event_that_is_refused_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    scribe = Scribe(Refused("POST", 403, "the namespace is being terminated"))
    await run(scribe, "A", "B", told=1)
    assert scribe.asked == ["A", "B"]
    assert scribe.told == ["B"]


async def test_an_event_that_can_be_told_later_is() -> None:
    scribe = Scribe(Unavailable("POST", 503, "starting"))
    await run(scribe, "A", "B", told=2)
    assert scribe.told == ["A", "B"]
    assert scribe.asked == ["A", "A", "B"]
