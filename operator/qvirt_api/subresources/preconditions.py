"""In which state an instance must be for each verb (pure), with KubeVirt's codes and words (reference, section 5.2)."""

from __future__ import annotations

from typing import Final

from qvirt_api.subresources.errors import StatusError, bad_request, conflict, forbidden
from qvirt_api.subresources.views import Instance
from qvirt_crds.model import Model

_KIND: Final = "virtualmachineinstance"
_NOT_RUNNING: Final = "VMI is not running"
_GRAPHICS: Final = ("devices", "autoattachGraphicsDevice")


def pause(vmi: Instance) -> None:
    """:raise StatusError: 409, or 403 where the kubelet would kill a paused guest by its probe."""
    if not vmi.running:
        raise _conflict(vmi, "VM is not running")
    probe = vmi.spec.get("livenessProbe")
    if isinstance(probe, dict) and "guestAgentPing" not in probe:
        text = "Pausing VMIs with a non-GuestAgentPing LivenessProbe is not supported"
        raise forbidden(_KIND, vmi.name, text)
    if vmi.is_true("Paused"):
        raise _conflict(vmi, "VMI is already paused")


def unpause(vmi: Instance) -> None:
    """:raise StatusError: 409."""
    running(vmi)
    if not vmi.is_true("Paused"):
        raise _conflict(vmi, "VMI is not paused")


def running(vmi: Instance) -> None:
    """For freeze and unfreeze.

    :raise StatusError: 409.
    """
    if not vmi.running:
        raise _conflict(vmi, _NOT_RUNNING)


def soft_reboot(vmi: Instance) -> None:
    """:raise StatusError: 409."""
    if not vmi.running:
        raise _conflict(vmi, "VM is not running")
    if vmi.is_true("Paused"):
        raise _conflict(vmi, "VMI is paused")
    acpi = vmi.domain("features", "acpi", "enabled")
    if not vmi.is_true("AgentConnected") and acpi is False:
        text = "VMI neither have the agent connected nor the ACPI feature enabled"
        raise _conflict(vmi, text)


def reset(vmi: Instance) -> None:
    """:raise StatusError: 409."""
    if not vmi.running:
        text = f"Failed to reset non-running VMI with phase {vmi.phase}: {_NOT_RUNNING}"
        raise _conflict(vmi, text)


def agent(vmi: Instance) -> None:
    """For what only the guest agent knows.

    :raise StatusError: 409.
    """
    running(vmi)
    if not vmi.is_true("AgentConnected"):
        raise _conflict(vmi, "VMI does not have guest agent connected")


def console(vmi: Instance) -> None:
    """:raise StatusError: 400 (ask again when it runs), 409 (it never will)."""
    if vmi.domain("devices", "autoattachSerialConsole") is False:
        raise bad_request("No serial consoles are present.")
    if vmi.phase == "Failed":
        raise _conflict(vmi, "VMI is in failed status")
    _runs_already(vmi)


def screen(vmi: Instance) -> None:
    """:raise StatusError: 400."""
    if vmi.domain(*_GRAPHICS) is False:
        raise bad_request("No graphics devices are present.")
    _runs_already(vmi)


class ScreenState(Model, frozen=True, kw_only=True):
    """Whether a screen can be opened now. ``waiting``: it may be later, without anybody changing the spec."""

    ready: bool = False
    waiting: bool = False
    message: str = ""


def screen_state(vmi: Instance | None) -> ScreenState:
    """The same as `screen`, for people who look at a page."""
    if vmi is None:
        return ScreenState(waiting=True, message="it is not running")
    try:
        screen(vmi)
    except StatusError as error:
        if vmi.running or vmi.domain(*_GRAPHICS) is False:
            return ScreenState(message=error.message)
        what = "it has ended" if vmi.final else "it is starting"
        return ScreenState(waiting=True, message=f"{what} (phase {vmi.phase or 'Pending'})")
    return ScreenState(ready=True)


def port_forward(vmi: Instance) -> None:
    """:raise StatusError: 400, 409."""
    _runs_already(vmi)
    if vmi.is_true("Paused"):
        raise _conflict(vmi, "VMI is paused")
    if not vmi.has_interfaces:
        raise bad_request("no network interfaces are present")


def node_agent(vmi: Instance) -> None:
    """For whatever goes through virt-handler.

    :raise StatusError: 400.
    """
    if vmi.phase not in ("Running", "Scheduled"):
        raise bad_request(
            "Unable to connect to VirtualMachineInstance because phase is "
            f"{vmi.phase} instead of Running or Scheduled"
        )


def _runs_already(vmi: Instance) -> None:
    if not vmi.running:
        # 400 and nothing else: it makes `virtctl console` wait.
        raise bad_request(_NOT_RUNNING)


def _conflict(vmi: Instance, text: str) -> StatusError:
    return conflict(_KIND, vmi.name, text)
