"""Keeps one VMI of this node: follows its launcher, and its status follows what was seen. Ends when the VMI is final or gone.

Level-triggered: what is to be written is decided anew each time from the VMI as it is and the guest as it is, so that both
sides may be missed for any time, and this process may end at any instant.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from qvirt_crds.errors import QvirtError
from qvirt_crds.meta import JsonObject
from qvirt_crds.status import FINAL
from qvirt_handler import status
from qvirt_handler.backoff import Backoff
from qvirt_handler.errors import LauncherMissing
from qvirt_handler.finder import Finder
from qvirt_handler.guest import Session
from qvirt_handler.status import Notice, Seen
from qvirt_handler.writer import Writer, now
from qvirt_kube.errors import Conflict, KubeError, NotFound, Refused
from qvirt_kube.mirror import older
from qvirt_qmp.errors import QmpError

_log = logging.getLogger(__name__)

#: Between looks for a launcher that is about to be started, in seconds: at first, and after a while, when an image is pulled.
_SOON: Final = 0.1
_BY_AND_BY: Final = 1.0
_WHILE: Final = 60.0
#: Between tries to reach one that has been started, as the kubelet says.
_FIRST: Final = 0.2
_LAST: Final = 10.0
#: One that is not found for this long, when the kubelet says that it runs, is trouble.
_PATIENCE: Final = 30.0
#: Events that wait for the API server.
_MOST_NOTICES: Final = 64


class World(msgspec.Struct, frozen=True, kw_only=True):
    """Where a keeper works."""

    node: str
    finder: Finder
    writer: Writer
    #: netsetup's.
    state_dir: str


class Keeper:
    """See the module. `run` is its life, `update` may be called at any time."""

    def __init__(self, vmi: JsonObject, world: World) -> None:
        self._vmi = vmi
        self._world = world
        self._seen = Seen()
        self._notices: deque[Notice] = deque(maxlen=_MOST_NOTICES)
        self._dirty = asyncio.Event()
        self._moved = asyncio.Event()
        self._gone = False
        self.name = f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}"

    @property
    def vmi(self) -> JsonObject:
        """As it was seen last."""
        return self._vmi

    def update(self, vmi: JsonObject) -> None:
        """The VMI has changed."""
        # The watch may be behind our own writes.
        if older(_version(vmi), _version(self._vmi)):
            return
        if _phase(vmi) != _phase(self._vmi):
            self._moved.set()
        self._vmi = vmi
        self._dirty.set()

    def end(self) -> None:
        """The VMI is gone, or no longer ours."""
        self._gone = True
        self._dirty.set()

    # --- guest.Log ---

    def see(self, **changes: Any) -> None:
        """Something new about the guest."""
        seen = replace(self._seen, **changes)
        if seen != self._seen:
            self._seen = seen
            self._dirty.set()

    def tell(self, notice: Notice) -> None:
        """Something to be told."""
        self._notices.append(notice)
        self._dirty.set()

    # ---

    @property
    def _over(self) -> bool:
        return self._gone or _phase(self._vmi) in FINAL

    async def run(self) -> None:
        """Until the VMI is final or gone."""
        follower = asyncio.create_task(self._follow(), name=f"follow {self.name}")
        try:
            await self._write(follower)
        finally:
            follower.cancel()
            await asyncio.wait({follower})
        if not follower.cancelled() and (error := follower.exception()):
            raise error

    async def _follow(self) -> None:
        session = Session(self._world.finder, self._world.state_dir, self)
        backoff = Backoff(_FIRST, _LAST)
        waited = 0.0
        while True:
            self._moved.clear()
            try:
                await session.follow(self._vmi, self._world.node)
            except LauncherMissing as error:
                if waited >= _PATIENCE and not self._early and not self._ended:
                    self.see(trouble=str(error))
            except (QvirtError, QmpError, msgspec.ValidationError) as error:
                _log.warning("%s: %s", self.name, error)
                self.see(trouble=str(error))
            else:
                _log.info("%s: the launcher has hung up", self.name)
                backoff.reset()
                waited = 0.0
            if self._ended:
                return
            often = _SOON if waited < _WHILE else _BY_AND_BY
            seconds = often if self._early else backoff.next()
            waited += seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._moved.wait()
                    waited = 0.0

    @property
    def _early(self) -> bool:
        """Whether the kubelet has not said yet that the launcher runs."""
        return _phase(self._vmi) == "Scheduling"

    @property
    def _ended(self) -> bool:
        """The guest has, and its launcher said so: virt-controller sees it by the pod."""
        report = self._seen.report
        return report is not None and report.phase in FINAL

    async def _write(self, follower: asyncio.Task[None]) -> None:
        follower.add_done_callback(lambda _: self._dirty.set())
        backoff = Backoff(1.0, 30.0)
        self._dirty.set()
        while not self._over:
            await self._dirty.wait()
            self._dirty.clear()
            if self._over or (follower.done() and follower.exception() is not None):
                return
            try:
                await self._write_once()
                backoff.reset()
            except NotFound:
                self._gone = True
            except KubeError as error:
                _log.warning("%s: %s", self.name, error)
                self._dirty.set()
                await asyncio.sleep(backoff.next())

    async def _write_once(self) -> None:
        try:
            await self._write_status()
        except Conflict:
            fresh = await self._world.writer.read(self._vmi)
            if fresh["metadata"]["uid"] != self._vmi["metadata"]["uid"]:
                self._gone = True
                return
            self._vmi = fresh
            self._dirty.set()
            return
        while self._notices:
            try:
                await self._world.writer.tell(self._vmi, self._notices[0])
            except Refused as error:
                # A namespace that is being deleted takes no Events; asking again would give the same answer.
                _log.info("%s: %s is not told: %s", self.name, self._notices[0].reason, error)
            self._notices.popleft()

    async def _write_status(self) -> None:
        written = status.decide(self._vmi.get("status") or {}, self._seen, now())
        if written.changes:
            self._vmi = await self._world.writer.write(self._vmi, written)
            self._notices.extend(written.notices)


def _version(vmi: JsonObject) -> str:
    return str(vmi["metadata"].get("resourceVersion", ""))


def _phase(vmi: JsonObject) -> str:
    return str((vmi.get("status") or {}).get("phase", ""))
