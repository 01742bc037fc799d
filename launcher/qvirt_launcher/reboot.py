"""A soft reboot without an agent (pure, a part of `lifecycle`): the power button, and a reset in the moment that the guest is off.

Meanwhile QEMU is told to stand still, instead of leaving, when the guest powers itself off. A guest that ignores the button
for its grace period goes on as if nothing had been asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qvirt_launcher.inputs import Cont, Effect, OnPowerOff, PowerDown, ResetMachine, SetDeadline
from qvirt_launcher.phases import DEFAULT_GRACE_SECONDS, PRESS_EVERY_SECONDS, RESET_SECONDS

if TYPE_CHECKING:
    from qvirt_launcher.lifecycle import Outcome, State


def begin(state: State) -> Outcome:
    """``vm-soft-reboot``. Nothing happens unless the guest runs and nobody has asked before."""
    if state.phase != "Running" or state.rung != "none" or state.reboot != "none":
        return state, ()
    if state.reboot_ends:
        # What follows a reboot under this policy is the guest's end: then the button is enough.
        return state, (PowerDown(),)
    grace = state.grace or DEFAULT_GRACE_SECONDS
    state = replace(state, reboot="asked", remaining=grace)
    return state, (OnPowerOff(leave=False), *_press(state))


def guest_is_off(state: State) -> Outcome:
    """It did as it was asked. Should QEMU leave all the same, the end is the guest's."""
    state = replace(state, reboot="off", end="GuestShutdown")
    return state, (ResetMachine(), SetDeadline(RESET_SECONDS))


def machine_was_reset(state: State) -> Outcome:
    """Start anew."""
    state = replace(state, reboot="none", end=None, remaining=0)
    return state, (SetDeadline(None), OnPowerOff(leave=True), Cont())


def time_passed(state: State) -> Outcome:
    """Press again, as a guest that boots has no driver for the button yet; in the end, let it be."""
    state = replace(state, remaining=state.remaining - _next_press(state))
    if state.remaining > 0:
        return state, _press(state)
    return replace(state, reboot="none"), (OnPowerOff(leave=True),)


def call_off(state: State) -> Outcome:
    """The guest is to end instead."""
    if state.reboot == "none":
        return state, ()
    return replace(state, reboot="none"), (OnPowerOff(leave=True),)


def _press(state: State) -> tuple[Effect, ...]:
    return PowerDown(), SetDeadline(_next_press(state))


def _next_press(state: State) -> int:
    return min(PRESS_EVERY_SECONDS, state.remaining)
