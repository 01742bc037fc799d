"""Many clients on one monitor, under the policy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, Protocol, cast

from qvirt_qmp import deadlines
from qvirt_qmp.client import Monitor
from qvirt_qmp.errors import CommandTimeout, Refused
from qvirt_qmp.policy import Refuse, decide
from qvirt_qmp.recorder import FlightRecorder
from qvirt_qmp.session import Call

_log = logging.getLogger(__name__)

#: Commands of clients that are on their way to QEMU at once. QEMU answers one after the other, and the launcher's own
#: commands must not wait behind a crowd.
_AT_ONCE: Final = 8


class Broadcast(Protocol):
    """`server.Server.broadcast`."""

    def __call__(
        self, event_name: str, data: object, timestamp: Mapping[str, object] | None
    ) -> None: ...


class Multiplexer:
    """Lets clients' commands through to the monitor, and the monitor's events through to the clients.

    Ids never meet: each command has one of the monitor's own on its way, and the server gives each client its id back. A command that
    QEMU is slow to answer keeps only its own client waiting (and QEMU itself).

    :param monitor: its recorder becomes ``recorder``, so that the launcher's own commands are recorded too.
    :param broadcast: gets each event as QEMU sent it, from now on until `aclose` or the end of the monitor.
    """

    def __init__(
        self, monitor: Monitor, recorder: FlightRecorder, *, broadcast: Broadcast | None = None
    ) -> None:
        self._monitor = monitor
        self._recorder = recorder
        self._broadcast = broadcast
        self._room = asyncio.Semaphore(_AT_ONCE)
        monitor.recorder = recorder
        self._stop_listening = monitor.listen(self._relay)

    async def forward(self, call: Call) -> object:
        """Carry out a client's command on the monitor.

        :raises Refused: the policy says no; QEMU has not seen it.
        :raises CommandFailed, CommandTimeout, Interrupted, Disconnected: as `Monitor.execute`.
        """
        origin = str(call.client)
        decision = decide(call.command, call.arguments, call.client.grade)
        if isinstance(decision, Refuse):
            self._recorder.refused(origin, call.command, call.arguments, decision.reason)
            raise Refused(call.command, decision.reason)
        seconds = deadlines.deadline_of(call.command)
        try:
            async with asyncio.timeout(seconds):
                await self._room.acquire()
        except TimeoutError:
            raise CommandTimeout(call.command, seconds) from None
        try:
            return await self._monitor.execute(
                call.command, call.arguments or None, deadline=seconds, origin=origin
            )
        finally:
            self._room.release()

    def close(self) -> None:
        """Relay no more events. The monitor stays open."""
        if self._broadcast is not None:
            self._broadcast = None
            self._stop_listening()

    def _relay(self, message: Mapping[str, object]) -> None:
        if self._broadcast is None:
            return
        name, timestamp = message.get("event"), message.get("timestamp")
        if not isinstance(name, str):
            _log.warning("an event without a name was not relayed: %.200s", message)
            return
        told = cast("Mapping[str, object]", timestamp) if isinstance(timestamp, dict) else None
        self._broadcast(name, message.get("data"), told)
