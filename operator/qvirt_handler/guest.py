"""One session with a launcher: hand the guest over if it hasn't one yet, then follow it to the end of the session.

What is seen goes to a `Log`; nothing is written to the API server here.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator
from typing import Final, Protocol

import msgspec

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.meta import JsonObject
from qvirt_crds.report import VmReport
from qvirt_crds.sync import SyncArguments
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_handler import devices, finder, images, network
from qvirt_handler.errors import LauncherMissing, LauncherStrange, SyncRefused
from qvirt_handler.interfaces import Pod
from qvirt_handler.status import CREATED, SHUTTING_DOWN, Notice
from qvirt_qmp.client import Monitor
from qvirt_qmp.errors import QmpError
from qvirt_qmp.events import Event, Powerdown, Unknown

_log = logging.getLogger(__name__)

_SYNC_SECONDS: Final = 30.0


class Log(Protocol):
    """Takes what is seen of the guest."""

    def see(self, **changes: object) -> None:
        """Fields of `status.Seen`."""

    def tell(self, notice: Notice) -> None:
        """Something happened."""


def decode(vmi: JsonObject) -> VirtualMachineInstance:
    """What the launcher is handed: with defaults, and without what only the API server has a use for.

    :raises msgspec.ValidationError: it is of a shape that we don't know.
    """
    meta = {
        k: vmi["metadata"][k]
        for k in ("name", "namespace", "uid", "labels", "annotations")
        if k in vmi["metadata"]
    }
    status = {k: v for k, v in (vmi.get("status") or {}).items() if k == "volumeStatus"}
    kept = {**vmi, "metadata": meta, "status": status}
    return apply_defaults(
        msgspec.convert(kept, VirtualMachineInstance), new_uuid=lambda: meta["uid"]
    )


def pods_of(vmi: JsonObject, node: str) -> tuple[str, ...]:
    """UIDs of the VMI's pods on this node."""
    active = (vmi.get("status") or {}).get("activePods") or {}
    return tuple(uid for uid, where in active.items() if where == node)


class Session:
    """:param state_dir: netsetup's."""

    def __init__(self, find: finder.Finder, state_dir: str, log: Log) -> None:
        self._find = find
        self._state_dir = state_dir
        self._log = log
        self._stopping = False
        self._told = False

    async def follow(self, vmi: JsonObject, node: str) -> None:
        """From finding the launcher to its hanging up.

        :raises QvirtError: why there is no (more) session; `LauncherMissing` when there is no launcher.
        :raises QmpError: the same, from the conversation.
        """
        async with self._connected(vmi, node) as (process, monitor):
            events = monitor.events()
            try:
                await self._begin(vmi, process, monitor)
                async for event in events:
                    await self._take(event, monitor)
            finally:
                events.close()

    @contextlib.asynccontextmanager
    async def _connected(
        self, vmi: JsonObject, node: str
    ) -> AsyncIterator[tuple[finder.Process, Monitor]]:
        pods = pods_of(vmi, node)
        if not pods:
            raise LauncherMissing("status.activePods names no pod of this node")
        missing: LauncherMissing | None = None
        for pod in pods:
            try:
                process = self._find.find(pod)
            except LauncherMissing as error:
                missing = error
                continue
            with process:
                _await_images(vmi, process)
                monitor = await finder.connect(self._find, process, pod)
                try:
                    yield process, monitor
                finally:
                    await monitor.aclose()
                return
        assert missing is not None
        raise missing

    async def _begin(self, vmi: JsonObject, process: finder.Process, monitor: Monitor) -> None:
        report = await _query(monitor)
        uid = vmi["metadata"]["uid"]
        if report.uid and report.uid != uid:
            raise LauncherStrange(
                f"the launcher of process {process.pid} serves the VMI with uid {report.uid}, not {uid}"
            )
        if report.phase == "Waiting":
            if vmi["metadata"].get("deletionTimestamp"):
                return  # its pod is being deleted, too
            report = await self._hand_over(vmi, process, monitor)
            self._log.tell(CREATED)
        await self._look(vmi, process)
        await self._report(report, monitor)
        self._log.see(trouble=_trouble(report))

    async def _hand_over(
        self, vmi: JsonObject, process: finder.Process, monitor: Monitor
    ) -> VmReport:
        spec = decode(vmi)
        devices.give(spec, process)
        try:
            made = await network.set_up(spec, process, self._state_dir)
        except OSError as error:
            raise LauncherMissing(f"the launcher has ended: {error.strerror}") from error
        for warning in made.reply.warnings if made else ():
            _log.warning("%s/%s: %s", spec.metadata.namespace, spec.metadata.name, warning)
        fds = made.descriptors if made else ()
        arguments = SyncArguments(vmi=spec, attachments=made.reply.attachments if made else ())
        try:
            answer = await monitor.execute(
                "vm-sync", msgspec.to_builtins(arguments), fds=fds, deadline=_SYNC_SECONDS
            )
        except QmpError as error:
            raise SyncRefused(f"the launcher doesn't take the guest: {error}") from error
        finally:
            for fd in fds:
                os.close(fd)
        return _decode_report(answer)

    async def _look(self, vmi: JsonObject, process: finder.Process) -> None:
        spec = decode(vmi).spec
        links = {n.name: network.pod_link(n) for n in spec.networks}
        primary = next((name for name, link in links.items() if link == network.POD_LINK), "")
        addresses: tuple[str, ...] = ()
        if primary:
            try:
                addresses = await network.pod_addresses(process)
            except OSError as error:
                raise LauncherMissing(f"the launcher has ended: {error.strerror}") from error
        cards = spec.domain.devices.interfaces
        pod = Pod(
            addresses=addresses,
            primary=primary,
            links=links,
            masquerade=tuple(card.name for card in cards if card.masquerade is not None),
        )
        self._log.see(pod=pod)

    async def _take(self, event: Event, monitor: Monitor) -> None:
        match event:
            case Unknown(name="VM_STATUS", data=data):
                report = _decode_report(data)
                await self._report(report, monitor)
                if trouble := _trouble(report):
                    self._log.see(trouble=trouble)
            case Powerdown() if self._stopping and not self._told:
                # Else it is a soft reboot, or somebody at the monitor; and the button is pressed more than once.
                self._told = True
                self._log.tell(SHUTTING_DOWN)
            case _:
                pass

    async def _report(self, report: VmReport, monitor: Monitor) -> None:
        self._stopping = report.phase == "Stopping"
        run_state = ""
        if report.phase == "Paused":
            # It may be on already, or gone; what is true then is told by the next event.
            with contextlib.suppress(QmpError):
                answer = await monitor.execute("query-status")
                run_state = str(answer.get("status", "")) if isinstance(answer, dict) else ""
        self._log.see(report=report, run_state=run_state)


def _await_images(vmi: JsonObject, process: finder.Process) -> None:
    """Before the kubelet has said that the whole pod runs.

    :raises LauncherMissing: it will be of use later.
    """
    if (vmi.get("status") or {}).get("phase") != "Scheduling":
        return
    try:
        awaited = images.awaited(vmi, process)
    except OSError as error:
        raise LauncherMissing(f"the launcher has ended: {error.strerror}") from error
    if awaited:
        raise LauncherMissing(f"images of {', '.join(awaited)} are not there yet")


def _trouble(report: VmReport) -> str:
    """Why the guest could not be had."""
    failed = report.end_reason in {"PrepareFailed", "QemuFailed"}
    return report.message if failed else ""


async def _query(monitor: Monitor) -> VmReport:
    return _decode_report(await monitor.execute("vm-query"))


def _decode_report(data: object) -> VmReport:
    try:
        return msgspec.convert(data, VmReport)
    except msgspec.ValidationError as error:
        raise LauncherStrange(f"the launcher's report can't be read: {error}") from error
