"""The guest's clock and timers: ``-rtc`` and ``-global`` (the boards' own switches are in `board`)."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Final

from qvirt_crds.domain import Clock, Domain, TickPolicy, Timers
from qvirt_crds.model import Model
from qvirt_launcher.arguments import Options, refused
from qvirt_launcher.errors import HostError
from qvirt_launcher.facts import HostFacts

_TIMER: Final = "spec.domain.clock.timer"


class ClockOptions(Model, frozen=True, kw_only=True):
    """Clock and timers as options, and what this accelerator can't do."""

    rtc: Options
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
    return ClockOptions(rtc={"base": _base(clock, host), **_rtc(timers)}, globals=pit, notes=notes)


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
