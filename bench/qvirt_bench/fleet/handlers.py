"""virt-handlers of many nodes, as far as the API server sees them: their own decision about the status, their own Events.

Their guests run as soon as the launcher is started and the instance is handed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qvirt_bench.fleet.api import Api, Object
from qvirt_bench.fleet.player import Player, event
from qvirt_crds.report import GuestInterface, VmReport
from qvirt_handler import interfaces
from qvirt_handler.status import CREATED, Notice, Seen, decide
from qvirt_handler.writer import now
from qvirt_pods.pods import CREATED_BY

_VMIS: Final = "/apis/kubevirt.io/v1/virtualmachineinstances"
_SEEN: Final = Seen(
    report=VmReport(
        phase="Running",
        interfaces=(GuestInterface(name="default", mac="02:00:00:00:00:01"),),
    ),
    pod=interfaces.Pod(addresses=("10.0.0.1",), primary="default", links={"default": "eth0"}),
)


class Handlers:
    """:param running: called with each instance that has become Running."""

    def __init__(self, api: Api, running: Callable[[Object], None]) -> None:
        self._api = api
        self._running = running
        #: UIDs of instances whose launchers have been started; and instances that wait for that.
        self._launched: set[str] = set()
        self._early: dict[str, Object] = {}
        self._player = Player(api, _VMIS, self._step)
        self.play = self._player.play

    def launch(self, pod: Object) -> None:
        """The containers of a pod have been started."""
        uid = pod["metadata"].get("labels", {}).get(CREATED_BY, "")
        self._launched.add(uid)
        if uid in self._early:
            self._player.show(self._early.pop(uid))

    async def _step(self, vmi: Object) -> None:
        status = vmi.get("status") or {}
        if status.get("phase") == "Running":
            self._running(vmi)
        if not status.get("nodeName"):
            return
        if vmi["metadata"]["uid"] not in self._launched:
            self._early[vmi["metadata"]["uid"]] = vmi
            return
        written = decide(status, _SEEN, now())
        if not written.changes:
            return
        meta = vmi["metadata"]
        path = f"/apis/kubevirt.io/v1/namespaces/{meta['namespace']}/virtualmachineinstances/{meta['name']}"
        version = {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
        await self._api.patch(path, {"metadata": version, "status": written.changes})
        first = () if status.get("phase") == "Running" else (CREATED,)
        for notice in (*first, *written.notices):
            await self._tell(vmi, notice)

    async def _tell(self, vmi: Object, notice: Notice) -> None:
        path = f"/api/v1/namespaces/{vmi['metadata']['namespace']}/events"
        await self._api.create(path, event(vmi, "virt-handler", notice.reason, notice.message))
