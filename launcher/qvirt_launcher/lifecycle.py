"""The life of one guest as a table and a pure step: what happened goes in, what to do comes out.

`main` feeds it (signals, QMP events, the child's exit, deadlines) and carries out the effects. Nothing here waits, reads a
clock or touches QEMU.
"""

from __future__ import annotations

from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from qvirt_crds.report import EndReason, Phase
from qvirt_launcher import reboot
from qvirt_launcher.inputs import (
    Abandon,
    CommandFailed,
    Connected,
    Cont,
    DeadlinePassed,
    Effect,
    Exited,
    Input,
    Kill,
    Launch,
    Lost,
    PowerDown,
    Prepare,
    Prepared,
    Quit,
    RebootRequested,
    Refused,
    Rung,
    SetDeadline,
    Signalled,
    StopRequested,
    Synced,
    Terminate,
)
from qvirt_launcher.phases import (
    DEFAULT_GRACE_SECONDS,
    KILL_SECONDS,
    PHASE_OF_END,
    PRESS_EVERY_SECONDS,
    QUIT_SECONDS,
    START_SECONDS,
    TERMINATE_SECONDS,
    TRANSITIONS,
    TransitionRefused,
    ended,
)
from qvirt_qmp import events


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All that is remembered of a guest's life."""

    phase: Phase = "Waiting"
    rung: Rung = "none"
    #: Seconds of the spec; 0 also when the guest has no ACPI, as then nothing could tell it to shut down.
    grace: int = DEFAULT_GRACE_SECONDS
    #: Seconds of the grace period in force that are left, counted at the last press of the power button.
    remaining: int = 0
    start_paused: bool = False
    #: Whether a reboot of the guest ends it (``rebootPolicy: Terminate``).
    reboot_ends: bool = False
    #: A soft reboot by the power button: pressed, or the guest is off and is to be started anew.
    reboot: Literal["none", "asked", "off"] = "none"
    connected: bool = False
    #: Whether the guest has executed anything.
    ran: bool = False
    #: Whether its vCPUs stand still (also while stopping, when the phase no longer says so).
    paused: bool = False
    #: Known before the end: the reason becomes final when QEMU has exited.
    end: EndReason | None = None
    message: str = ""


Outcome = tuple[State, tuple[Effect, ...]]


def step(state: State, given: Input) -> Outcome:
    """What follows from an input: the next state and what is to be done, in order.

    Never raises, whatever comes in whatever phase; what makes no sense (any more) changes nothing.
    """
    if ended(state.phase):
        return state, ()
    match given:
        case Synced():
            return _synced(state, given)
        case Prepared():
            return _prepared(state)
        case Refused():
            return _refused(state, given)
        case Connected():
            return _connected(state)
        case Lost():
            return _lost(state)
        case CommandFailed():
            return _command_failed(state, given)
        case Exited():
            return _exited(state, given)
        case Signalled():
            return _stop(state, state.grace) if state.rung == "none" else _hurry(state)
        case StopRequested(grace=grace):
            return _stop(state, state.grace if grace is None else grace)
        case RebootRequested():
            return reboot.begin(state)
        case DeadlinePassed():
            return _deadline_passed(state)
        case _:
            return _event(state, given) if _has_child(state) else (state, ())


def _move(state: State, phase: Phase) -> State:
    if phase == state.phase:
        return state
    if phase not in TRANSITIONS[state.phase]:
        raise TransitionRefused(state.phase, phase)
    return replace(state, phase=phase)


def _finish(state: State, end: EndReason, message: str) -> State:
    return replace(
        _move(state, PHASE_OF_END[end]), end=end, message=message, rung="none", paused=False
    )


# --- coming up -------------------------------------------------------------------------------------------------------


def _synced(state: State, given: Synced) -> Outcome:
    if state.phase != "Waiting":
        return state, ()
    grace = DEFAULT_GRACE_SECONDS if given.grace is None else given.grace
    state = replace(
        state,
        grace=grace if given.acpi else 0,
        start_paused=given.start_paused,
        reboot_ends=given.reboot_ends,
    )
    return _move(state, "Preparing"), (Prepare(),)


def _prepared(state: State) -> Outcome:
    if state.phase != "Preparing":
        return state, ()
    return _move(state, "Starting"), (SetDeadline(START_SECONDS), Launch())


def _refused(state: State, given: Refused) -> Outcome:
    if state.phase not in ("Preparing", "Starting"):
        return state, ()
    return _finish(state, given.end, given.message), ()


def _connected(state: State) -> Outcome:
    state = replace(state, connected=True)
    if state.phase != "Starting":
        return state, ()
    if state.start_paused:
        return replace(_move(state, "Paused"), paused=True), (SetDeadline(None),)
    return state, (Cont(),)


# --- what QEMU says --------------------------------------------------------------------------------------------------


def _event(state: State, event: events.Event) -> Outcome:
    match event:
        case events.Resume():
            return _resumed(state)
        case events.Stop():
            return _paused(state)
        case events.Shutdown(reason="guest-shutdown") if state.reboot == "asked":
            return reboot.guest_is_off(state)
        case events.Reset() if state.reboot == "off":
            return reboot.machine_was_reset(state)
        case events.Shutdown():
            return _shut_down(state, event)
        case events.GuestPanicked():
            return _panicked(state, event)
        case events.Watchdog(action="poweroff"):
            # QEMU leaves at once with code 0 and sends no SHUTDOWN for this one.
            return _leaving(
                state, "GuestShutdown", "The watchdog expired and powered the guest off."
            )
        case events.BlockIoError(action="stop"):
            what = "no space left" if event.nospace else event.reason
            return replace(state, message=f"I/O error on a disk ({what}); the guest is paused."), ()
        case _:
            return state, ()


def _resumed(state: State) -> Outcome:
    state = replace(state, ran=True, paused=False)
    match state.phase:
        case "Starting" | "Paused":
            # A soft reboot that waits for the guest has a deadline of its own.
            kept: tuple[Effect, ...] = () if state.reboot != "none" else (SetDeadline(None),)
            return replace(_move(state, "Running"), message=""), kept
        case _:
            return state, ()


def _paused(state: State) -> Outcome:
    if state.reboot == "off":
        return state, ()  # between off and on, nobody has paused it
    state = replace(state, paused=True)
    return (_move(state, "Paused") if state.phase == "Running" else state), ()


def _shut_down(state: State, event: events.Shutdown) -> Outcome:
    match event.reason:
        case "guest-shutdown":
            return _leaving(state, "GuestShutdown")
        case "guest-reset" | "host-qmp-system-reset":
            return _leaving(state, state.end or "GuestReset")
        case "guest-panic":
            return _leaving(state, "GuestPanicked", state.message or "The guest's kernel panicked.")
        case "host-error":
            return _leaving(
                state, "QemuFailed", "QEMU gave the guest up after an error of its own."
            )
        case _:  # quit, a signal to QEMU, its window closed: whoever did it, no grace period was in force
            return _leaving(state, state.end or "Stopped")


def _panicked(state: State, event: events.GuestPanicked) -> Outcome:
    if event.action == "run":
        return replace(state, message="The guest's kernel panicked and was left running."), ()
    state = replace(state, end="GuestPanicked", message="The guest's kernel panicked.")
    if event.action == "pause" and state.rung in ("none", "powerdown"):
        return _climb(state, "quit")
    return _leaving(state, "GuestPanicked", state.message)


def _leaving(state: State, end: EndReason, message: str = "") -> Outcome:
    """QEMU is about to exit by itself: remember why, and see that it does."""
    if state.end == "GuestPanicked" and end != "GuestPanicked":
        return state, ()
    kept = state.message if end == state.end else ""
    state = replace(state, end=end, message=message or kept)
    if state.rung in ("none", "powerdown"):
        return replace(_move(state, "Stopping"), rung="exit"), (SetDeadline(QUIT_SECONDS),)
    return state, ()


def _lost(state: State) -> Outcome:
    """The monitor hung up. Most often QEMU is exiting; if not, it can't be told anything any more."""
    state = replace(state, connected=False)
    if not _has_child(state) or state.rung not in ("none", "powerdown"):
        return state, ()
    return replace(_move(state, "Stopping"), rung="exit"), (SetDeadline(QUIT_SECONDS),)


def _command_failed(state: State, given: CommandFailed) -> Outcome:
    if state.phase != "Starting":
        return state, ()  # while stopping, the rung's deadline is the answer
    return _give_up(state, f"QEMU does not start the guest: {given.command}: {given.message}")


def _give_up(state: State, message: str) -> Outcome:
    return _climb(replace(state, end="QemuFailed", message=message), "terminate")


def _exited(state: State, given: Exited) -> Outcome:
    if not _has_child(state):
        return state, ()
    if state.end is None:
        return _finish(state, "QemuFailed", _sentence(given)), ()
    message = state.message
    if state.end == "QemuFailed" and given.stderr:
        message = f"{message}\n{given.stderr}".strip()
    return _finish(state, state.end, message), ()


def _sentence(given: Exited) -> str:
    how = (
        f"was killed by signal {-given.code}"
        if given.code < 0
        else f"exited with code {given.code}"
    )
    return f"QEMU {how}: {given.stderr}" if given.stderr else f"QEMU {how} and said nothing."


# --- going down ------------------------------------------------------------------------------------------------------


def _has_child(state: State) -> bool:
    return state.phase in ("Starting", "Running", "Paused", "Stopping")


def _stop(state: State, grace: int) -> Outcome:
    """Begin the ladder; on it, a shorter grace period shortens the one in force, a longer one changes nothing."""
    match state.rung, state.phase:
        case "none", "Waiting":
            return _finish(state, "Stopped", ""), ()
        case "none", "Preparing":
            return _finish(state, "Stopped", "Stopped before QEMU was started."), (Abandon(),)
        case "none", _:
            return _begin(state, grace)
        case "powerdown", _ if grace <= 0:
            return _climb(replace(state, end="Stopped"), "quit")
        case "powerdown", _ if grace < state.remaining:
            state = replace(state, remaining=grace)
            return state, (SetDeadline(_next_press(grace)),)
        case _:
            return state, ()


def _begin(state: State, grace: int) -> Outcome:
    # A guest that is off for a soft reboot has shut down: there is nothing to wait for.
    if not state.ran or grace <= 0 or state.grace <= 0 or state.reboot == "off":
        end: EndReason = "GuestShutdown" if state.reboot == "off" else "Stopped"
        return _climb(replace(state, end=end), "quit")
    state, before = reboot.call_off(state)
    state = replace(_move(state, "Stopping"), rung="powerdown", remaining=grace)
    return state, (*before, *_press(state))


def _press(state: State) -> tuple[Effect, ...]:
    # A guest whose vCPUs stand still can't see its power button.
    wake: tuple[Effect, ...] = (Cont(),) if state.paused else ()
    return (*wake, PowerDown(), SetDeadline(_next_press(state.remaining)))


def _next_press(remaining: int) -> int:
    return min(PRESS_EVERY_SECONDS, remaining)


def _hurry(state: State) -> Outcome:
    """One more signal: leave the present rung at once."""
    match state.rung:
        case "none" | "powerdown":
            return _climb(replace(state, end=state.end or "Stopped"), "quit")
        case "exit" | "quit":
            return _climb(state, "terminate")
        case "terminate" | "kill":
            return _climb(state, "kill")
        case _:
            assert_never(state.rung)


def _deadline_passed(state: State) -> Outcome:
    match state.rung:
        case "none":
            if state.reboot == "asked":
                return reboot.time_passed(state)
            if state.reboot == "off":
                return _give_up(state, "QEMU did not reset the machine for a soft reboot.")
            if state.phase != "Starting":
                return state, ()
            return _give_up(state, f"QEMU did not run the guest within {START_SECONDS} seconds.")
        case "powerdown":
            return _grace_counted(state)
        case "exit" | "quit":
            return _climb(
                state, "terminate" if not state.connected or state.rung == "quit" else "quit"
            )
        case "terminate":
            return _climb(state, "kill")
        case "kill":
            message = "QEMU can't be killed: it hangs in the host's kernel. " + state.message
            return replace(_move(state, "Failed"), message=message.strip(), end="QemuFailed"), ()
        case _:
            assert_never(state.rung)


def _grace_counted(state: State) -> Outcome:
    state = replace(state, remaining=state.remaining - _next_press(state.remaining))
    if state.remaining > 0:
        return state, _press(state)
    message = "The guest ignored the power button until the grace period was over."
    return _climb(replace(state, end="KilledAfterGrace", message=message), "quit")


def _climb(state: State, rung: Rung) -> Outcome:
    """Step on a rung that ends QEMU. Without a monitor there is no `quit`."""
    if rung == "quit" and not state.connected:
        rung = "terminate"
    state = replace(_move(state, "Stopping"), rung=rung, reboot="none")
    match rung:
        case "quit":
            return state, (Quit(), SetDeadline(QUIT_SECONDS))
        case "terminate":
            return state, (Terminate(), SetDeadline(TERMINATE_SECONDS))
        case _:
            return state, (Kill(), SetDeadline(KILL_SECONDS))
