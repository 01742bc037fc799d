"""The phases of a guest's life, what may follow what, how ends are judged, and how long each rung of the ladder lasts.

How ends map to Succeeded and Failed is KubeVirt's (its VMI phases): a guest that was killed because it ignored the power
button has failed; one that was stopped without a grace period has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from qvirt_crds.report import EndReason, Phase

TRANSITIONS: Final[Mapping[Phase, frozenset[Phase]]] = {
    "Waiting": frozenset({"Preparing", "Succeeded"}),
    "Preparing": frozenset({"Starting", "Succeeded", "Failed"}),
    "Starting": frozenset({"Running", "Paused", "Stopping", "Failed"}),
    "Running": frozenset({"Paused", "Stopping", "Failed"}),
    "Paused": frozenset({"Running", "Stopping", "Failed"}),
    "Stopping": frozenset({"Succeeded", "Failed"}),
    "Succeeded": frozenset(),
    "Failed": frozenset(),
}

PHASE_OF_END: Final[Mapping[EndReason, Phase]] = {
    "GuestShutdown": "Succeeded",
    "GuestReset": "Succeeded",
    "GuestPanicked": "Failed",
    "Stopped": "Succeeded",
    "KilledAfterGrace": "Failed",
    "QemuFailed": "Failed",
    "PrepareFailed": "Failed",
}

#: Exit codes of virt-launcher and of `qvirt run`.
EXIT_CODES: Final[Mapping[EndReason, int]] = {
    "GuestShutdown": 0,
    "GuestReset": 0,
    "Stopped": 0,
    "PrepareFailed": 4,
    "QemuFailed": 5,
    "GuestPanicked": 6,
    "KilledAfterGrace": 7,
}

#: KubeVirt's, for a spec that says nothing.
DEFAULT_GRACE_SECONDS: Final = 30
#: The power button is pressed again this often: a guest that is still booting has no driver for it yet.
PRESS_EVERY_SECONDS: Final = 5
#: From QEMU's start to the guest's first instruction. Allocating hundreds of gigabytes of huge pages takes minutes.
START_SECONDS: Final = 240
#: How long QEMU may flush disks after the guest has ended or `quit` was sent. With the two rungs below it stays within the
#: 30 seconds that a pod gets beyond the guest's grace period.
QUIT_SECONDS: Final = 10
TERMINATE_SECONDS: Final = 5
KILL_SECONDS: Final = 5
#: From the guest's power-off to the machine's reset, in a soft reboot.
RESET_SECONDS: Final = 10


class TransitionRefused(Exception):
    """A bug in `step`: the table has no such transition."""

    def __init__(self, old: Phase, new: Phase) -> None:
        self.old = old
        self.new = new
        super().__init__(f"no transition from {old} to {new}")


def ended(phase: Phase) -> bool:
    """Whether nothing follows this phase."""
    return not TRANSITIONS[phase]


def exit_code(end: EndReason | None) -> int:
    """The launcher's exit code for a life that is over."""
    return EXIT_CODES[end or "Stopped"]


def mermaid() -> str:
    """`TRANSITIONS` as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> Waiting"]
    for old, following in TRANSITIONS.items():
        lines += [f"    {old} --> {new}" for new in TRANSITIONS if new in following]
        if not following:
            lines.append(f"    {old} --> [*]")
    return "\n".join(lines) + "\n"
