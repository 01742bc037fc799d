"""What goes into the guest's lifecycle and what comes out of it, as data. `lifecycle` decides, `main` acts."""

from __future__ import annotations

from typing import Literal

import msgspec

from qvirt_crds.report import EndReason
from qvirt_qmp import events

#: How far down the shutdown ladder we are; ``exit``: QEMU is leaving by itself.
Rung = Literal["none", "powerdown", "exit", "quit", "terminate", "kill"]


class Synced(msgspec.Struct, frozen=True, kw_only=True):
    """``vm-sync`` was accepted. ``grace``: the spec's seconds, None when it says nothing."""

    grace: int | None = None
    acpi: bool = True
    start_paused: bool = False
    reboot_ends: bool = False


class Prepared(msgspec.Struct, frozen=True):
    """Disks and command line are there."""


class Refused(msgspec.Struct, frozen=True):
    """Disks or command line could not be made, or QEMU could not be started at all."""

    message: str
    end: EndReason = "PrepareFailed"


class Connected(msgspec.Struct, frozen=True):
    """QEMU answered on its monitor."""


class Lost(msgspec.Struct, frozen=True):
    """The monitor hung up."""


class CommandFailed(msgspec.Struct, frozen=True):
    """QEMU refused one of our own commands, or did not answer in time."""

    command: str
    message: str


class Exited(msgspec.Struct, frozen=True):
    """QEMU is gone and all its events were seen. ``code`` below zero: killed by that signal."""

    code: int
    stderr: str = ""


class Signalled(msgspec.Struct, frozen=True):
    """SIGTERM or SIGINT."""


class StopRequested(msgspec.Struct, frozen=True):
    """``vm-stop``. ``grace`` None: the spec's."""

    grace: int | None = None


class RebootRequested(msgspec.Struct, frozen=True):
    """``vm-soft-reboot``."""


class DeadlinePassed(msgspec.Struct, frozen=True):
    """The time of the last `SetDeadline` is over."""


Input = (
    Synced
    | Prepared
    | Refused
    | Connected
    | Lost
    | CommandFailed
    | Exited
    | Signalled
    | StopRequested
    | RebootRequested
    | DeadlinePassed
    | events.Event
)


class Prepare(msgspec.Struct, frozen=True):
    """Make disks and command line."""


class Abandon(msgspec.Struct, frozen=True):
    """Stop making them."""


class Launch(msgspec.Struct, frozen=True):
    """Start QEMU and connect to its monitor."""


class Cont(msgspec.Struct, frozen=True):
    """Let the vCPUs run."""


class PowerDown(msgspec.Struct, frozen=True):
    """Press the guest's power button."""


class Quit(msgspec.Struct, frozen=True):
    """Tell QEMU to leave, over QMP."""


class Terminate(msgspec.Struct, frozen=True):
    """SIGTERM to QEMU."""


class Kill(msgspec.Struct, frozen=True):
    """SIGKILL to QEMU."""


class OnPowerOff(msgspec.Struct, frozen=True):
    """What QEMU is to do when the guest powers itself off: leave, or stand still."""

    leave: bool


class ResetMachine(msgspec.Struct, frozen=True):
    """Start the machine anew, from its firmware."""


class SetDeadline(msgspec.Struct, frozen=True):
    """Feed `DeadlinePassed` after so many seconds, in place of any earlier deadline; None: no deadline."""

    seconds: int | None


Effect = (
    Prepare
    | Abandon
    | Launch
    | Cont
    | PowerDown
    | Quit
    | Terminate
    | Kill
    | OnPowerOff
    | ResetMachine
    | SetDeadline
)
