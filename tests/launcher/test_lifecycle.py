"""The guest's life: what follows what, that every path ends, and that the drawing in docs/ is the table."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qvirt_crds.report import EndReason, Phase
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
    Refused,
    SetDeadline,
    Signalled,
    StopRequested,
    Synced,
    Terminate,
)
from qvirt_launcher.lifecycle import State, step
from qvirt_launcher.phases import (
    EXIT_CODES,
    PHASE_OF_END,
    QUIT_SECONDS,
    START_SECONDS,
    TRANSITIONS,
    ended,
    exit_code,
    mermaid,
)
from qvirt_qmp import events

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "lifecycle.md"

PANIC = events.GuestPanicked(action="shutdown")
POWERED_OFF = events.Shutdown(guest=True, reason="guest-shutdown")
QUIT_DONE = events.Shutdown(guest=False, reason="host-qmp-quit")

INPUTS: list[Input] = [
    Synced(),
    Synced(grace=0),
    Synced(grace=7, acpi=False),
    Synced(grace=12, start_paused=True),
    Prepared(),
    Refused("no"),
    Refused("no", "QemuFailed"),
    Connected(),
    Lost(),
    CommandFailed("cont", "no"),
    Exited(0),
    Exited(1, "boom"),
    Exited(-9),
    Signalled(),
    StopRequested(),
    StopRequested(0),
    StopRequested(3),
    StopRequested(600),
    DeadlinePassed(),
    events.Resume(),
    events.Stop(),
    events.Reset(guest=True, reason="guest-reset"),
    events.Powerdown(),
    events.Unknown(name="VSERPORT_CHANGE"),
    events.Watchdog(action="poweroff"),
    events.Watchdog(action="reset"),
    events.BlockIoError(action="stop", nospace=True),
    events.BlockIoError(action="report"),
    PANIC,
    events.GuestPanicked(action="pause"),
    events.GuestPanicked(action="run"),
    *(
        events.Shutdown(guest=False, reason=reason)
        for reason in (
            "",
            "none",
            "host-error",
            "host-qmp-quit",
            "host-qmp-system-reset",
            "host-signal",
            "host-ui",
            "guest-shutdown",
            "guest-reset",
            "guest-panic",
            "something-new",
        )
    ),
]


def live(*inputs: Input, state: State | None = None) -> tuple[State, list[Effect]]:
    """The state after a life so far, and all effects in order."""
    state = state or State()
    effects: list[Effect] = []
    for one in inputs:
        state, more = step(state, one)
        effects += more
    return state, effects


def running(grace: int | None = None) -> State:
    return live(Synced(grace=grace), Prepared(), Connected(), events.Resume())[0]


def test_coming_up() -> None:
    state, effects = live(Synced(), Prepared(), Connected(), events.Resume())
    assert state.phase == "Running"
    assert effects == [Prepare(), SetDeadline(START_SECONDS), Launch(), Cont(), SetDeadline(None)]


def test_started_paused_it_waits_for_somebody_to_let_it_run() -> None:
    state, effects = live(Synced(start_paused=True), Prepared(), Connected())
    assert state.phase == "Paused"
    assert Cont() not in effects
    assert live(events.Resume(), state=state)[0].phase == "Running"


def test_a_second_sync_changes_nothing() -> None:
    assert live(Synced(grace=1), state=running()) == (running(), [])


@pytest.mark.parametrize(
    ("reason", "end", "code"),
    [
        ("guest-shutdown", "GuestShutdown", 0),
        ("guest-reset", "GuestReset", 0),
        ("guest-panic", "GuestPanicked", 6),
        ("host-qmp-quit", "Stopped", 0),
        ("host-signal", "Stopped", 0),
        ("host-error", "QemuFailed", 5),
    ],
)
def test_the_last_shutdown_event_says_why(reason: str, end: EndReason, code: int) -> None:
    state, _ = live(events.Shutdown(reason=reason), Lost(), Exited(0), state=running())
    assert (state.end, exit_code(state.end)) == (end, code)
    assert state.phase == PHASE_OF_END[end]


def test_a_guest_that_resets_goes_on() -> None:
    assert live(events.Reset(guest=True, reason="guest-reset"), state=running())[0] == running()


def test_a_panic_is_not_taken_for_a_shutdown() -> None:
    shutdown = events.Shutdown(guest=True, reason="guest-panic")
    state, _ = live(PANIC, shutdown, Exited(0), state=running())
    assert (state.end, state.phase) == ("GuestPanicked", "Failed")
    assert "panicked" in state.message


def test_a_panicked_guest_that_stands_still_is_ended() -> None:
    state, effects = live(events.GuestPanicked(action="pause"), events.Stop(), state=running())
    assert effects == [Quit(), SetDeadline(QUIT_SECONDS)]
    assert live(QUIT_DONE, Exited(0), state=state)[0].end == "GuestPanicked"


def test_qemu_that_just_dies_has_failed_with_its_words() -> None:
    state, _ = live(Lost(), Exited(1, "no such disk"), state=running())
    assert (state.phase, state.end) == ("Failed", "QemuFailed")
    assert "code 1" in state.message
    assert "no such disk" in state.message


def test_the_ladder_of_a_deaf_guest() -> None:
    state, effects = live(Signalled(), state=running(grace=12))
    assert effects == [PowerDown(), SetDeadline(5)]
    state, effects = live(DeadlinePassed(), DeadlinePassed(), state=state)
    assert effects == [PowerDown(), SetDeadline(5), PowerDown(), SetDeadline(2)]
    state, effects = live(DeadlinePassed(), DeadlinePassed(), DeadlinePassed(), state=state)
    rungs = [effect for effect in effects if not isinstance(effect, SetDeadline)]
    assert rungs == [Quit(), Terminate(), Kill()]
    state, _ = live(Exited(-9), state=state)
    assert (state.phase, state.end, exit_code(state.end)) == ("Failed", "KilledAfterGrace", 7)


def test_the_deadlines_of_the_grace_period_add_up_to_it() -> None:
    for grace in range(1, 40):
        state, effects = live(Signalled(), state=running(grace=grace))
        waited = 0
        while state.rung == "powerdown":
            seconds = [e.seconds for e in effects if isinstance(e, SetDeadline)][-1]
            assert seconds is not None
            waited += seconds
            state, effects = live(DeadlinePassed(), state=state)
        assert waited == grace


def test_a_guest_that_obeys_has_succeeded() -> None:
    state, _ = live(Signalled(), events.Powerdown(), POWERED_OFF, Exited(0), state=running())
    assert (state.phase, state.end) == ("Succeeded", "GuestShutdown")


def test_a_guest_that_makes_it_just_before_quit_has_succeeded() -> None:
    state, _ = live(Signalled(), DeadlinePassed(), state=running(grace=1))
    assert state.end == "KilledAfterGrace"
    assert live(POWERED_OFF, Exited(0), state=state)[0].end == "GuestShutdown"


@pytest.mark.parametrize("started", [Synced(grace=0), Synced(grace=9, acpi=False)])
def test_without_a_grace_period_quit_comes_at_once_and_is_no_failure(started: Synced) -> None:
    state, _ = live(started, Prepared(), Connected(), events.Resume())
    state, effects = live(Signalled(), state=state)
    assert effects == [Quit(), SetDeadline(QUIT_SECONDS)]
    state, _ = live(QUIT_DONE, Exited(0), state=state)
    assert (state.phase, state.end) == ("Succeeded", "Stopped")


def test_a_paused_guest_is_woken_to_see_its_power_button() -> None:
    _, effects = live(events.Stop(), Signalled(), state=running())
    assert effects[:2] == [Cont(), PowerDown()]


def test_each_further_signal_hurries() -> None:
    _, effects = live(Signalled(), Signalled(), Signalled(), Signalled(), state=running())
    rungs = [effect for effect in effects if not isinstance(effect, SetDeadline)]
    assert rungs == [PowerDown(), Quit(), Terminate(), Kill()]


def test_a_hurried_guest_was_stopped_not_deaf() -> None:
    state, _ = live(Signalled(), Signalled(), QUIT_DONE, Exited(0), state=running())
    assert (state.phase, state.end) == ("Succeeded", "Stopped")


def test_a_stop_request_shortens_the_grace_period_and_never_lengthens_it() -> None:
    state, _ = live(StopRequested(20), state=running(grace=60))
    assert state.remaining == 20
    assert live(StopRequested(40), state=state) == (state, [])
    assert live(StopRequested(3), state=state)[1] == [SetDeadline(3)]
    assert live(StopRequested(0), state=state)[1] == [Quit(), SetDeadline(QUIT_SECONDS)]


def test_stopped_before_there_is_a_guest() -> None:
    for inputs, effects in (([], []), ([Synced()], [Prepare(), Abandon()])):
        state, done = live(*inputs, Signalled())
        assert (state.phase, state.end, exit_code(state.end)) == ("Succeeded", "Stopped", 0)
        assert done == effects


def test_stopped_before_the_monitor_answers_qemu_is_terminated() -> None:
    state, effects = live(Synced(), Prepared(), Signalled())
    assert effects[-2] == Terminate()
    assert live(Exited(-15), state=state)[0].end == "Stopped"


def test_a_guest_that_never_ran_gets_no_power_button() -> None:
    _, effects = live(Synced(start_paused=True), Prepared(), Connected(), Signalled())
    assert PowerDown() not in effects
    assert Quit() in effects


def test_refusals_before_the_guest_runs() -> None:
    assert live(Synced(), Refused("no disk"))[0].end == "PrepareFailed"
    assert live(Synced(), Prepared(), Refused("no qemu", "QemuFailed"))[0].end == "QemuFailed"


def test_a_qemu_that_does_not_come_up_is_ended() -> None:
    state, effects = live(Synced(), Prepared(), DeadlinePassed())
    assert Terminate() in effects
    state, _ = live(Exited(-15, "stuck"), state=state)
    assert state.end == "QemuFailed"
    assert str(START_SECONDS) in state.message
    assert "stuck" in state.message


def test_a_monitor_that_hangs_up_alone_ends_qemu() -> None:
    _, effects = live(Lost(), DeadlinePassed(), DeadlinePassed(), state=running())
    assert Terminate() in effects
    assert Kill() in effects
    assert Quit() not in effects


def test_a_full_disk_is_said_until_the_guest_goes_on() -> None:
    state, _ = live(
        events.BlockIoError(action="stop", nospace=True), events.Stop(), state=running()
    )
    assert state.phase == "Paused"
    assert "no space" in state.message
    assert live(events.Resume(), state=state)[0].message == ""


def test_a_watchdog_that_powers_off_sends_no_shutdown() -> None:
    state, _ = live(events.Watchdog(action="poweroff"), Lost(), Exited(0), state=running())
    assert (state.end, "watchdog" in state.message) == ("GuestShutdown", True)


@given(st.lists(st.sampled_from(INPUTS), max_size=30))
def test_whatever_comes_only_the_tables_transitions_happen(inputs: list[Input]) -> None:
    state = State()
    for one in inputs:
        following, _ = step(state, one)  # TransitionRefused would fail the test
        assert following.phase == state.phase or following.phase in TRANSITIONS[state.phase]
        assert ended(following.phase) <= (following.end is not None)
        assert (following.rung != "none") == (following.phase == "Stopping")
        state = following


@given(st.lists(st.sampled_from(INPUTS), max_size=20))
def test_every_path_ends_once_it_is_told_to(inputs: list[Input]) -> None:
    """From anywhere: a stop, and then nothing but passing time, with a QEMU that ignores everything."""
    state, _ = live(*inputs, StopRequested(20))
    for _ in range(10):
        state, _ = step(state, DeadlinePassed())
    assert ended(state.phase)
    assert state.end is not None


@given(st.lists(st.sampled_from(INPUTS), max_size=20))
def test_while_it_stops_there_is_always_a_deadline(inputs: list[Input]) -> None:
    state, pending = State(), False
    for one in inputs:
        if isinstance(one, DeadlinePassed):
            if not pending:
                continue
            pending = False
        state, effects = step(state, one)
        for effect in effects:
            if isinstance(effect, SetDeadline):
                pending = effect.seconds is not None
        assert pending or state.phase not in ("Starting", "Stopping")


@given(st.lists(st.sampled_from(INPUTS), max_size=20), st.sampled_from(INPUTS))
def test_after_the_end_nothing_happens(inputs: list[Input], late: Input) -> None:
    state, _ = live(*inputs)
    if ended(state.phase):
        assert step(state, late) == (state, ())


def test_tables_are_complete() -> None:
    assert set(TRANSITIONS) == set(get_args(Phase))
    assert set(PHASE_OF_END) == set(EXIT_CODES) == set(get_args(EndReason))
    assert all(ended(phase) for phase in PHASE_OF_END.values())


def test_every_phase_can_be_reached() -> None:
    assert set().union(*TRANSITIONS.values()) | {"Waiting"} == set(get_args(Phase))


def test_the_documented_drawing_and_ends_are_the_tables(request: pytest.FixtureRequest) -> None:
    text = DOCUMENT.read_text()
    before, _, rest = text.partition("```mermaid\n")
    _, fence, after = rest.partition("```")
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(f"{before}```mermaid\n{mermaid()}{fence}{after}")
    assert f"```mermaid\n{mermaid()}```" in DOCUMENT.read_text()
    for end, code in EXIT_CODES.items():
        assert f"| `{end}` | {PHASE_OF_END[end]} | {code} |" in text


def test_states_are_values() -> None:
    assert replace(running(), message="") == running()
