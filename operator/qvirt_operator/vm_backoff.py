"""How long a VirtualMachine waits before it starts a guest again that failed to start (pure; reference: KubeVirt's, section 3.6)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from qvirt_crds.model import Model
from qvirt_operator.views import Object, timestamp
from qvirt_operator.vm_seen import STARTING, Seen

_FACTOR: Final = 10.0
_CAP: Final = 300.0


class Failures(Model, frozen=True, kw_only=True):
    """The back-off: how often, of whom last, and until when."""

    count: int = 0
    uid: str = ""
    until: datetime | None = None


def count_failures(seen: Seen) -> Failures:
    """The back-off after this observation: delay = failures squared times 10 s, and up to half of that more."""
    vm, vmi = seen.vm, seen.vmi
    before = _failures(vm.raw.get("startFailure"))
    asked = any(not request.by_us for request in vm.status.state_change_requests)
    if vm.strategy not in STARTING or asked:
        return Failures()
    if vmi is None:
        return before
    if vmi.has_run:
        return Failures()
    if vmi.phase != "Failed" or vmi.metadata.uid == before.uid or vmi.metadata.deleting:
        return before
    count = before.count + 1
    delay = min(count**2 * _FACTOR * (1 + seen.jitter / 2), _CAP)
    until = (seen.now + timedelta(seconds=delay)).replace(microsecond=0)
    return Failures(count=count, uid=vmi.metadata.uid, until=until)


def _failures(raw: object) -> Failures:
    if not isinstance(raw, dict):
        return Failures()
    count, uid, until = (
        raw.get(key) for key in ("consecutiveFailCount", "lastFailedVMIUID", "retryAfterTimestamp")
    )
    if not isinstance(count, int) or not isinstance(uid, str) or not isinstance(until, str):
        return Failures()
    try:
        moment = datetime.fromisoformat(until)
    except ValueError:
        return Failures()
    if moment.tzinfo is None or count < 1:
        return Failures()
    return Failures(count=count, uid=uid, until=moment)


def wait(failures: Failures, now: datetime) -> float | None:
    """Seconds until the next try may be made; None: now."""
    if failures.until is None or failures.until <= now:
        return None
    return (failures.until - now).total_seconds() + 0.1


def as_object(failures: Failures) -> Object | None:
    """As ``status.startFailure`` has it."""
    if failures.until is None:
        return None
    return {
        "consecutiveFailCount": failures.count,
        "lastFailedVMIUID": failures.uid,
        "retryAfterTimestamp": timestamp(failures.until),
    }
