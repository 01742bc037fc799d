"""What is done to one guest: everything that a user can open is opened, used, and as often as not cut off in the middle."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from qvirt_bench import subresources
from qvirt_bench.errors import BenchError
from qvirt_bench.soak.tally import TROUBLE, Tally
from qvirt_launcher.cli.cluster.errors import ClusterRefused
from qvirt_launcher.cli.cluster.kubeconfig import Target

_PROMPT: Final = b"login:"
_TRIES: Final = 30
#: A stalled console is dropped by virt-handler when it has left that much unread; less is sent.
_FLOOD: Final = 64 * 1024

Visit = Callable[[Target, str], Awaitable[None]]


async def console(target: Target, name: str) -> None:
    """Press a key and read the prompt."""
    async with subresources.stream(target, name, "console") as opened:
        opened.send(b"\r")
        await subresources.until(opened, _PROMPT)


async def console_dropped(target: Target, name: str) -> None:
    """Ten that are cut off at once."""
    for _ in range(10):
        async with subresources.stream(target, name, "console"):
            pass


async def console_taken_over(target: Target, name: str) -> None:
    """The first one is cut off by the second."""
    async with (
        subresources.stream(target, name, "console") as first,
        subresources.stream(target, name, "console") as second,
    ):
        async with asyncio.timeout(subresources.DEADLINE):
            while await first.read():
                pass
        second.send(b"\r")
        await subresources.until(second, _PROMPT)


async def screen(target: Target, name: str) -> None:
    """RFB's greeting, then cut off."""
    async with subresources.stream(target, name, "vnc") as opened:
        await subresources.until(opened, b"RFB 003.")


async def screenshot(target: Target, name: str) -> None:
    """As PNG."""
    await subresources.picture(target, name)


async def forward(target: Target, name: str) -> None:
    """A page of the guest's."""
    async with subresources.stream(target, name, "portforward/80") as opened:
        opened.send(b"GET /hostname HTTP/1.0\r\n\r\n")
        await subresources.until(opened, b"\r\n\r\n")


async def forward_dropped(target: Target, name: str) -> None:
    """Cut off with data on the way in both directions: the port's service is an echo."""
    async with subresources.stream(target, name, "portforward/7") as opened:
        opened.send(bytes(_FLOOD))
        await opened.drain()
        async with asyncio.timeout(subresources.DEADLINE):
            await opened.read()


async def pause(target: Target, name: str) -> None:
    """A guest stands still for a moment. That it goes on is tried until it does."""
    await subresources.press(target, name, "pause")
    await asyncio.sleep(1)
    for _ in range(_TRIES):
        try:
            await subresources.press(target, name, "unpause")
        except ClusterRefused as error:
            # Not paused: an answer before got lost.
            if error.status == 409:
                return
        except TROUBLE:
            pass
        else:
            return
        await asyncio.sleep(2)
    raise BenchError(f"{name} stays paused")


VISITS: Final[Mapping[str, Visit]] = {
    "console opened, used, dropped": console,
    "console opened and dropped, 10 times": console_dropped,
    "console taken over": console_taken_over,
    "screen opened and dropped": screen,
    "screenshot": screenshot,
    "port forwarded": forward,
    "port forwarded and cut off": forward_dropped,
    "paused and unpaused": pause,
}


async def visit(tally: Tally, target: Target, name: str, dice: random.Random) -> None:
    """All of them once, in any order."""
    for what, act in dice.sample(sorted(VISITS.items()), len(VISITS)):
        await tally.attempt(what, functools.partial(act, target, name))
        await asyncio.sleep(dice.uniform(0, 1))
