"""The work queue: never two at a time on one key, nothing lost, failures again and later."""

from __future__ import annotations

import asyncio

import pytest

from qvirt_operator.known import MACHINES, Known
from qvirt_operator.watch import keys
from qvirt_operator.work import Key, WorkQueue

A, B = (Key(kind="vmi", namespace="n", name=name) for name in "ab")


class Work:
    """Notes what is looked at; each look waits for `go`."""

    def __init__(self) -> None:
        self.looks: list[Key] = []
        self.busy: set[Key] = set()
        self.go = asyncio.Event()
        self.go.set()
        self.looked = asyncio.Condition()
        self.fail = 0

    async def __call__(self, key: Key) -> float | None:
        assert key not in self.busy
        self.busy.add(key)
        try:
            await self.go.wait()
        finally:
            self.busy.remove(key)
        async with self.looked:
            self.looks.append(key)
            self.looked.notify_all()
        if self.fail:
            self.fail -= 1
            raise ValueError("odd")
        return None

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10), self.looked:
            await self.looked.wait_for(lambda: len(self.looks) >= count)


async def run(queue: WorkQueue, work: Work, count: int) -> None:
    running = asyncio.create_task(queue.run())
    await work.until(count)
    for _ in range(5):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_nudges_before_the_look_are_one() -> None:
    work = Work()
    queue = WorkQueue(work)
    for key in (A, B, A, A):
        queue.nudge(key)
    await run(queue, work, 2)
    assert sorted(work.looks, key=str) == [A, B]


async def test_a_nudge_during_the_look_leads_to_another() -> None:
    work = Work()
    work.go.clear()
    queue = WorkQueue(work)
    queue.nudge(A)
    running = asyncio.create_task(run(queue, work, 2))
    while not work.busy:
        await asyncio.sleep(0)
    queue.nudge(A)
    queue.nudge(A)
    work.go.set()
    await running
    assert work.looks == [A, A]


async def test_one_objects_bug_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    work.fail = 2
    queue = WorkQueue(work, workers=1)
    queue.nudge(A)
    queue.nudge(B)
    await run(queue, work, 4)
    assert sorted(work.looks, key=str) == [A, A, B, B]
    assert "this is a bug in qvirt" in caplog.text


def test_whom_an_event_concerns() -> None:
    owner = {"controller": True, "kind": "VirtualMachineInstance", "name": "x", "uid": "u"}
    pod = {
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "namespace": "n",
            "ownerReferences": [owner],
            "annotations": {"kubevirt.io/domain": "x"},
        },
    }
    known = Known()
    assert keys(pod, known) == (Key(kind="vmi", namespace="n", name="x"),)
    instance = {"kind": "VirtualMachineInstance", "metadata": {"name": "x", "namespace": "n"}}
    assert {key.kind for key in keys(instance, known)} == {"vmi"}
    known.mirrors[MACHINES].take(
        {"metadata": {"name": "x", "namespace": "n", "uid": "v", "resourceVersion": "1"}},
        gone=False,
    )
    assert {key.kind for key in keys(instance, known)} == {"vmi", "vm"}
    owner = {"controller": True, "kind": "VirtualMachineInstanceReplicaSet", "name": "web"}
    instance["metadata"] |= {"ownerReferences": [owner]}  # type: ignore[operator]
    assert Key(kind="vmirs", namespace="n", name="web") in keys(instance, known)
    assert keys({"kind": "Pod", "metadata": {"name": "p"}}, known) == ()
