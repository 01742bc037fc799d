"""The launcher room's errors.

LauncherError
├── HostError           this machine can't do it (missing program, busy name, no permission)
│   ├── ImageError      a disk image, or a container image that should hold one
│   ├── ClaimError      a claim's file or device
│   └── AlreadyRunning  a VM of this name has a living supervisor
├── PrepareError        disks, seed or command line can't be made
├── QemuError           QEMU can't be started, or ended when it should not
├── PrivilegeError      root could not become an ordinary user
├── RenderError         a value that no command line can carry
├── AgentError          the guest's agent
│   ├── AgentAway       nobody in the guest has its port open
│   ├── AgentSilent     it is there and does not answer
│   └── AgentRefused    it answered with an error
│       └── AgentCommandMissing  that it doesn't know the command
├── NotRunning          no VM of that name
└── UsageError          the command line contradicts itself or the manifest
"""

from __future__ import annotations

from typing import ClassVar

from qvirt_crds.agent import (
    AGENT_COMMAND_MISSING,
    AGENT_NOT_CONNECTED,
    AGENT_REFUSED,
    AGENT_TIMEOUT,
)
from qvirt_crds.errors import QvirtError


class LauncherError(QvirtError):
    """Root of this room's tree."""

    reason: ClassVar[str] = "LauncherError"


class HostError(LauncherError):
    """This machine can't do what was asked, for a reason outside of the manifest."""

    reason = "HostError"


class ImageError(HostError):
    """A disk image, or the container image around it, is missing, unreadable or not what it says."""

    reason = "ImageError"


class ClaimError(HostError):
    """A claim has no usable file or device on this machine."""

    reason = "ClaimError"


class AlreadyRunning(HostError):
    """The name is taken by a VM that runs."""

    reason = "AlreadyRunning"


class NotRunning(LauncherError):
    """No VM of that name runs here."""

    reason = "NotRunning"


class UsageError(LauncherError):
    """An option that contradicts another one, or that names something the manifest doesn't have."""

    reason = "UsageError"


class PrepareError(LauncherError):
    """A disk, a seed or the command line can't be made from the spec and what was found on this machine."""

    reason = "PrepareFailed"


class QemuError(LauncherError):
    """QEMU can't be started, or ended by itself; the message has the tail of what it said."""

    reason = "QemuFailed"


class PrivilegeError(LauncherError):
    """Privileges could not be given up. Nothing may go on after it."""

    reason = "PrivilegesKept"


class RenderError(LauncherError):
    """A value of the spec has a line break or another character that no argument of QEMU can carry."""

    reason = "RenderError"


class AgentError(LauncherError):
    """The guest's agent could not do it, or may not have done it. The message begins with what was asked."""

    reason = "AgentError"
    #: QMP's class of the error that a client gets (`qvirt_crds.agent`).
    error_class: ClassVar[str] = AGENT_REFUSED


class AgentAway(AgentError):
    """Nobody in the guest has the agent's port open, or whoever had it has closed it."""

    reason = "AgentNotConnected"
    error_class = AGENT_NOT_CONNECTED


class AgentSilent(AgentError):
    """No answer in time, or none that could be one. The command may still be carried out."""

    reason = "AgentTimeout"
    error_class = AGENT_TIMEOUT


class AgentRefused(AgentError):
    """The agent's own error."""

    reason = "AgentRefused"


class AgentCommandMissing(AgentRefused):
    """The agent doesn't know the command, or it is blocked."""

    reason = "AgentCommandMissing"
    error_class = AGENT_COMMAND_MISSING
