"""The launcher's own commands, and the way to QEMU's: what a client of the control and introspection sockets may ask.

``vm-*`` are ours, ``agent-*`` go to the guest's agent; everything else goes to QEMU through the multiplexer, under its policy. The control socket is for the user that the launcher runs as, and for root.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec

from qvirt_crds import agent
from qvirt_crds.model import Model
from qvirt_crds.report import ScreenshotArguments, ScreenshotReturn, StopArguments
from qvirt_launcher.agent_requests import Requests
from qvirt_launcher.errors import AgentError
from qvirt_launcher.inputs import RebootRequested, StopRequested
from qvirt_launcher.launcher import Launcher
from qvirt_launcher.taken import Taken
from qvirt_qmp.errors import CommandFailed, Refused
from qvirt_qmp.session import Call

T = TypeVar("T", bound=msgspec.Struct)

_GENERIC: Final = "GenericError"


class RecorderArguments(Model, frozen=True, kw_only=True):
    """Arguments of ``vm-recorder``: entries with numbers above ``since``."""

    since: int = 0


class Control:
    """Carries clients' commands out. Its `handle` is the server's handler."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._requests = Requests(launcher.agent, launcher.programs)
        self._commands: dict[str, Callable[[Call], Awaitable[object]]] = {
            "vm-sync": self._sync,
            "vm-query": self._query,
            "vm-stop": self._stop,
            "vm-recorder": self._recorder,
            "vm-soft-reboot": self._soft_reboot,
            "vm-screenshot": self._screenshot,
            **dict.fromkeys(agent.ARGUMENTS, self._ask_agent),
        }

    async def handle(self, call: Call) -> object:
        """One command.

        :raise QmpError: it can't be carried out, or may not be by this client.
        """
        command = self._commands.get(call.command)
        if command is None:
            return await self._launcher.guest.forward(call)
        return await command(call)

    async def _sync(self, call: Call) -> object:
        _demand_admin(call)
        arguments = _arguments(call, Taken)
        self._check_identity(call, arguments)
        _check_fds(call, arguments)
        self._launcher.sync(arguments, call.arguments, call.take_fds)
        return self._launcher.report()

    async def _query(self, call: Call) -> object:
        _arguments(call, Model)
        return self._launcher.report()

    async def _stop(self, call: Call) -> object:
        _demand_admin(call)
        grace = _arguments(call, StopArguments).grace_period_seconds
        if grace is not None and grace < 0:
            raise CommandFailed(call.command, _GENERIC, "gracePeriodSeconds must not be negative")
        self._launcher.feed(StopRequested(grace))
        return self._launcher.report()

    async def _soft_reboot(self, call: Call) -> object:
        _demand_admin(call)
        _arguments(call, Model)
        if self._launcher.state.phase != "Running":
            why = f"the guest is {self._launcher.state.phase}, not Running"
            raise CommandFailed(call.command, _GENERIC, why)
        self._launcher.feed(RebootRequested())
        return self._launcher.report()

    async def _screenshot(self, call: Call) -> object:
        _demand_admin(call)
        wake = _arguments(call, ScreenshotArguments).wake
        png = await self._launcher.screenshot(wake=wake)
        return ScreenshotReturn(png=base64.b64encode(png).decode())

    async def _recorder(self, call: Call) -> object:
        return self._launcher.guest.recorder.entries(_arguments(call, RecorderArguments).since)

    async def _ask_agent(self, call: Call) -> object:
        _demand_admin(call)
        arguments = _arguments(call, agent.ARGUMENTS[call.command])
        try:
            return await self._requests.carry_out(call.command, arguments)
        except AgentError as error:
            raise CommandFailed(call.command, error.error_class, str(error)) from error

    def _check_identity(self, call: Call, arguments: Taken) -> None:
        meta = arguments.vmi.metadata
        wanted = (meta.namespace, meta.name, meta.uid)
        present = self._launcher.identity
        if present is not None and present != wanted:
            raise CommandFailed(
                call.command,
                _GENERIC,
                f"this launcher serves {present[0]}/{present[1]} (uid {present[2] or 'none'}) and takes no second guest",
            )
        if present is None and self._launcher.state.phase != "Waiting":
            raise CommandFailed(call.command, _GENERIC, "this launcher is about to end")


def _demand_admin(call: Call) -> None:
    if call.client.grade != "admin":
        raise Refused(call.command, "it needs the launcher's control socket")
    if call.client.uid not in (0, os.geteuid()):
        raise Refused(call.command, f"uid {call.client.uid} is neither the launcher's nor root's")


def _arguments(call: Call, kind: type[T]) -> T:
    try:
        return msgspec.convert(call.arguments, kind)
    except msgspec.ValidationError as error:
        raise CommandFailed(call.command, _GENERIC, f"arguments: {error}") from None


def _check_fds(call: Call, arguments: Taken) -> None:
    """Every descriptor that is named has come, and none is named twice."""
    named = [
        position
        for attachment in arguments.attachments
        for position in (
            *attachment.tap_fds,
            *attachment.vhost_fds,
            *([] if attachment.dhcp_fd is None else [attachment.dhcp_fd]),
        )
    ]
    if len(set(named)) != len(named) or not set(named) <= set(range(len(call.fds))):
        raise CommandFailed(
            call.command,
            _GENERIC,
            f"attachments name descriptors {sorted(named)}, and {len(call.fds)} came with the message",
        )
