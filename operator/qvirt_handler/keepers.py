"""All keepers of this node, by the VMI's uid."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from qvirt_crds.errors import QvirtError
from qvirt_crds.meta import JsonObject
from qvirt_handler.keeper import Keeper, World
from qvirt_netsetup import api

_log = logging.getLogger(__name__)

#: Phases in which a VMI is ours: those of this node are Scheduling when their pods may have no process yet.
OURS: Final = ("Scheduling", "Scheduled", "Running")


class Keepers:
    """Starts, feeds and ends keepers. Guests don't notice when they end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._running: dict[str, tuple[Keeper, asyncio.Task[None]]] = {}

    def update(self, vmi: JsonObject) -> None:
        """A VMI of this node is there or has changed."""
        uid = vmi["metadata"]["uid"]
        running = self._running.get(uid)
        if running is not None:
            running[0].update(vmi)
        elif (vmi.get("status") or {}).get("phase") in OURS:
            keeper = Keeper(vmi, self._world)
            task = asyncio.create_task(self._keep(uid, keeper), name=f"keep {keeper.name}")
            self._running[uid] = (keeper, task)

    def drop(self, vmi: JsonObject) -> None:
        """A VMI is gone, or another node's."""
        running = self._running.get(vmi["metadata"]["uid"])
        if running is not None:
            running[0].end()

    def vmi(self, namespace: str, name: str) -> JsonObject | None:
        """The VMI of that name, as it was seen last; None: we take care of none."""
        keepers = (keeper for keeper, _ in self._running.values())
        return next((k.vmi for k in keepers if k.name == f"{namespace}/{name}"), None)

    async def aclose(self) -> None:
        """End all."""
        tasks = {task for _, task in self._running.values()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _keep(self, uid: str, keeper: Keeper) -> None:
        _log.info("%s: taking care of it", keeper.name)
        try:
            await keeper.run()
        except Exception:  # noqa: BLE001  a bug about one VMI must not end the care for the others
            _log.exception("%s: this is a bug; its next change makes another try", keeper.name)
        finally:
            del self._running[uid]
            _log.info("%s: done", keeper.name)
        await forget_dead(self._world.state_dir)


async def forget_dead(state_dir: str) -> None:
    """Drop what is remembered of networks whose pods have ended."""
    try:
        for name in await api.forget(state_dir):
            _log.info("%s: its network has ended with its pod", name)
    except QvirtError as error:
        _log.warning("%s", error)
