"""The guest's clock and timers: ``-rtc`` and ``-global`` (the boards' own switches are in `board`)."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Final

from qvirt_crds.domain import Clock, Domain, TickPolicy, Timers
from qvirt_crds.model import Model
from qvirt_launcher.arguments import Options, refused
from qvirt_launcher.board import family
from qvirt_launcher.cpu import vcpus
from qvirt_launcher.errors import HostError
from qvirt_launcher.facts import HostFacts

_TIMER: Final = "spec.domain.clock.timer"


class ClockOptions(Model, frozen=True, kw_only=True):
    """Clock and timers as options, and what this accelerator can't do."""

    rtc: Options
    #: ``-icount``; None: the guest's time is the host's.
    icount: Options | None = None
    globals: tuple[Options, ...] = ()
    notes: tuple[str, ...] = ()


def plan_clock(domain: Domain, host: HostFacts) -> ClockOptions:
    """UTC unless the spec says otherwise; a shifted clock starts at a date computed from the host's present.

    :raise SpecError: a tick policy that the timer doesn't have.
    :raise HostError: a time zone that this host doesn't know.
    """
    clock = domain.clock or Clock()
    timers = clock.timer or Timers()
    pit, notes = _pit(timers, host)
    icount, warning = _icount(domain, host)
    return ClockOptions(
        rtc={"base": _base(clock, host), **_rtc(timers)},
        icount=icount,
        globals=pit,
        notes=notes + warning,
    )


def _icount(domain: Domain, host: HostFacts) -> tuple[Options | None, tuple[str, ...]]:
    """Emulated microvms get a time that counts instructions.

    A microvm has neither HPET nor ACPI timer, so Linux measures its CPU against the PIT alone. On a busy host the emulator's
    two clocks drift apart, the measurement fails, and the kernel hangs ("Unable to calibrate against PIT"): tried, a
    machine with other work to do hangs more often than not. With counted instructions it can't fail. For several vCPUs
    counting is no cure: they would take turns, too slowly to start each other.
    """
    if host.accel == "kvm" or family(domain) != "microvm":
        return None, ()
    if vcpus(domain) == 1:
        return {"shift": "auto"}, ()
    return None, (
        "without KVM, a microvm with several vCPUs may hang at boot on a busy host: give it one, or use q35",
    )


def _base(clock: Clock, host: HostFacts) -> str:
    offset = 0
    if clock.timezone:
        if host.timezone_offset is None:
            raise HostError(
                f"spec.domain.clock.timezone: this machine doesn't know {clock.timezone!r}: "
                "write it as in America/New_York, and apt install tzdata"
            )
        offset = host.timezone_offset
    elif clock.utc and clock.utc.offset_seconds:
        offset = clock.utc.offset_seconds
    if offset == 0:
        return "utc"
    try:
        start = host.now.astimezone(UTC) + timedelta(seconds=offset)
    except OverflowError:
        raise refused(
            "spec.domain.clock.utc.offsetSeconds", f"{offset} leaves the calendar"
        ) from None
    return start.strftime("%Y-%m-%dT%H:%M:%S")


def _rtc(timers: Timers) -> Options:
    rtc = timers.rtc
    if rtc is None:
        return {}
    options: Options = {}
    if rtc.track:
        options["clock"] = "vm" if rtc.track == "guest" else "host"
    if rtc.tick_policy:
        _check_policy("rtc", rtc.tick_policy, ("delay", "catchup"))
        options["driftfix"] = "slew" if rtc.tick_policy == "catchup" else "none"
    return options


def _pit(timers: Timers, host: HostFacts) -> tuple[tuple[Options, ...], tuple[str, ...]]:
    if timers.hpet and timers.hpet.tick_policy:
        _check_policy("hpet", timers.hpet.tick_policy, ("delay",))
    pit = timers.pit
    if pit is None or pit.tick_policy is None:
        return (), ()
    _check_policy("pit", pit.tick_policy, ("delay", "discard"))
    if host.accel == "tcg":
        return (), ("without KVM the PIT has no tick policy",)
    lost: Options = {
        "driver": "kvm-pit",
        "property": "lost_tick_policy",
        "value": pit.tick_policy,
    }
    return (lost,), ()


def _check_policy(timer: str, policy: TickPolicy, known: tuple[TickPolicy, ...]) -> None:
    if policy not in known:
        raise refused(
            f"{_TIMER}.{timer}.tickPolicy",
            f"QEMU's {timer} has {' and '.join(known)}, not {policy}",
        )
