"""What can be done to a guest with one request: its buttons, and what its agent knows.

The launcher and QEMU are asked what state the guest is in, as the VMI's status may be behind them.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from aiohttp import web

from qvirt_crds import agent
from qvirt_crds.errors import QvirtError
from qvirt_crds.report import ScreenshotReturn, VmReport
from qvirt_handler.errors import LauncherMissing
from qvirt_handler.node_server import durations
from qvirt_handler.node_server.answers import Refusal, conflict, document
from qvirt_handler.node_server.reach import Reach, Target
from qvirt_qmp.client import Monitor
from qvirt_qmp.errors import CommandFailed, CommandTimeout, QmpError

_log = logging.getLogger(__name__)

#: Of a request's body.
_LONGEST_BODY: Final = 64 * 1024
_ORIGIN: Final = "virt-api"
_NO_AGENT: Final = "VMI does not have guest agent connected"
#: The agent's own deadlines are in the launcher; this is for one that has lost its guest.
_AGENT_SECONDS: Final = 60.0
_SCREENSHOT_SECONDS: Final = 20.0
_AT_WORK: Final = ("Running", "Paused")


class Options(msgspec.Struct, frozen=True, rename="camel"):
    """Bodies of the PUT requests; each looks at its own fields."""

    dry_run: tuple[str, ...] = ()
    #: As Go writes durations.
    unfreeze_timeout: str = ""


class Doing(msgspec.Struct, frozen=True, kw_only=True):
    """A request in a session with the launcher."""

    target: Target
    options: Options
    query: Mapping[str, str]
    monitor: Monitor
    report: VmReport

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        deadline: float | None = None,
    ) -> object:
        """At the launcher or QEMU."""
        return await self.monitor.execute(command, arguments, deadline=deadline, origin=_ORIGIN)

    @property
    def dry(self) -> bool:
        """Whether to look only."""
        return bool(self.options.dry_run)


Verb = Callable[[Doing], Awaitable[web.Response]]


async def carry_out(
    verb: str, request: web.Request, reach: Reach, target: Target
) -> web.StreamResponse:
    """One of `VERBS`.

    :raises Refusal: it can't be.
    """
    options = await _options(request)
    try:
        async with reach.session(target) as (monitor, report):
            doing = Doing(
                target=target,
                options=options,
                query=request.query,
                monitor=monitor,
                report=report,
            )
            return await VERBS[verb](doing)
    except LauncherMissing as error:
        _log.info("%s of %s: %s", verb, target.name, error)
        raise not_running(target, verb, target.phase) from error
    except (QmpError, QvirtError, msgspec.ValidationError) as error:
        raise _refusal(target, error) from error


def not_running(target: Target, verb: str, phase: str) -> Refusal:
    """There is no guest; in KubeVirt's words for each verb."""
    match verb:
        case "pause" | "softreboot":
            return conflict(target.name, "VM is not running")
        case "reset":
            message = f"Failed to reset non-running VMI with phase {phase}"
            return Refusal(400, message)
        case _:
            return conflict(target.name, "VMI is not running")


def _refusal(target: Target, error: Exception) -> Refusal:
    match error:
        case Refusal():
            return error
        case CommandFailed(error_class=agent.AGENT_NOT_CONNECTED):
            return conflict(target.name, _NO_AGENT)
        case CommandFailed(error_class="MachineNotThere"):
            return conflict(target.name, "VMI is not running")
        case CommandTimeout() | CommandFailed(error_class=agent.AGENT_TIMEOUT):
            return Refusal(504, str(error))
        case _:
            return Refusal(500, str(error))


async def _options(request: web.Request) -> Options:
    body = await request.content.read(_LONGEST_BODY)
    if not body.strip():
        return Options()
    try:
        return msgspec.json.decode(body, type=Options)
    except msgspec.DecodeError as error:
        raise Refusal(400, f"the request's body can't be read: {error}") from error


# --- buttons ---------------------------------------------------------------------------------------------------------


async def _runs(doing: Doing, verb: str) -> bool:
    """Whether the vCPUs of a guest that is at work run.

    :raises Refusal: it is not at work.
    """
    if doing.report.phase not in _AT_WORK:
        raise not_running(doing.target, verb, doing.target.phase)
    state = await doing.execute("query-status")
    return isinstance(state, dict) and state.get("running") is True


async def _pause(doing: Doing) -> web.Response:
    if not await _runs(doing, "pause"):
        raise conflict(doing.target.name, "VMI is already paused")
    if not doing.dry:
        await doing.execute("stop")
    return web.Response()


async def _unpause(doing: Doing) -> web.Response:
    if await _runs(doing, "unpause"):
        raise conflict(doing.target.name, "VMI is not paused")
    if not doing.dry:
        await doing.execute("cont")
    return web.Response()


async def _reset(doing: Doing) -> web.Response:
    await _runs(doing, "reset")
    await doing.execute("system_reset")
    return web.Response()


async def _soft_reboot(doing: Doing) -> web.Response:
    """By the agent, else by the power button and a reset in the moment that the guest is off."""
    if not await _runs(doing, "softreboot"):
        raise conflict(doing.target.name, "VMI is paused")
    try:
        await doing.execute("agent-shutdown", {"mode": "reboot"}, _AGENT_SECONDS)
    except CommandFailed as error:
        if error.error_class not in (agent.AGENT_NOT_CONNECTED, agent.AGENT_COMMAND_MISSING):
            raise
    else:
        return web.Response()
    features = doing.target.spec().spec.domain.features
    if features is not None and features.acpi is not None and features.acpi.enabled is False:
        why = "VMI neither have the agent connected nor the ACPI feature enabled"
        raise conflict(doing.target.name, why)
    await doing.execute("vm-soft-reboot")
    return web.Response()


async def _screenshot(doing: Doing) -> web.Response:
    if doing.target.spec().spec.domain.devices.autoattach_graphics_device is False:
        raise Refusal(400, "No graphics devices are present.")
    await _runs(doing, "vnc/screenshot")
    wake = doing.query.get("moveCursor") == "true"
    answer = await doing.execute("vm-screenshot", {"wake": wake}, _SCREENSHOT_SECONDS)
    png = base64.b64decode(msgspec.convert(answer, ScreenshotReturn).png)
    return web.Response(body=png, content_type="image/png")


# --- agent -----------------------------------------------------------------------------------------------------------


def _asks(command: str) -> Verb:
    async def ask(doing: Doing) -> web.Response:
        await _runs(doing, command)
        return document(await doing.execute(command, None, _AGENT_SECONDS))

    return ask


async def _freeze(doing: Doing) -> web.Response:
    await _runs(doing, "freeze")
    arguments = {}
    if doing.options.unfreeze_timeout:
        try:
            timeout = durations.seconds(doing.options.unfreeze_timeout)
        except ValueError as error:
            raise Refusal(400, f"unfreezeTimeout: {error}") from error
        arguments["unfreezeTimeoutSeconds"] = timeout
    await doing.execute("agent-freeze", arguments, _AGENT_SECONDS)
    return web.Response()


async def _unfreeze(doing: Doing) -> web.Response:
    await _runs(doing, "unfreeze")
    await doing.execute("agent-thaw", None, _AGENT_SECONDS)
    return web.Response()


VERBS: Final[Mapping[str, Verb]] = {
    "pause": _pause,
    "unpause": _unpause,
    "reset": _reset,
    "softreboot": _soft_reboot,
    "freeze": _freeze,
    "unfreeze": _unfreeze,
    "vnc/screenshot": _screenshot,
    "guestosinfo": _asks("agent-info"),
    "userlist": _asks("agent-users"),
    "filesystemlist": _asks("agent-filesystems"),
}
