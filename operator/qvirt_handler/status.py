"""What virt-handler writes into a VMI's status (pure): from what is there, and from what was seen of the guest.

Only the handler's own fields (`qvirt_crds.status`); conditions of others are copied as they are. Names, reasons and messages
are KubeVirt's where it has them (reference: its node agent, v1.9).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from qvirt_crds.agent import AgentReport
from qvirt_crds.meta import JsonObject
from qvirt_crds.report import VmReport
from qvirt_crds.status import synchronized_writer
from qvirt_handler import interfaces

_AT_WORK: Final = ("Running", "Paused", "Stopping")
#: Ours among the conditions.
PAUSED: Final = "Paused"
AGENT: Final = "AgentConnected"
AGENT_TOO_OLD: Final = "AgentVersionNotSupported"
CREDENTIALS: Final = "AccessCredentialsSynchronized"
#: Shared with virt-controller (`qvirt_crds.status.synchronized_writer`).
SYNCHRONIZED: Final = "Synchronized"

_OFFLINE: Final = "Guest agent is offline"

#: QEMU's run state (``query-status``) of a guest that a disk's error stopped.
IO_ERROR: Final = "io-error"


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """An Event to be posted about a VMI."""

    reason: str
    message: str
    warning: bool = False


CREATED: Final = Notice(reason="Created", message="VirtualMachineInstance defined.")
STARTED: Final = Notice(reason="Started", message="VirtualMachineInstance started.")
SHUTTING_DOWN: Final = Notice(reason="ShuttingDown", message="Signaled Graceful Shutdown")
CREDENTIALS_SYNCED: Final = Notice(
    reason="AccessCredentialsSyncSuccess", message="Access credentials sync successful."
)
_PAUSED: Final = Notice(reason="Paused", message="VirtualMachineInstance paused")
_UNPAUSED: Final = Notice(reason="Unpaused", message="VirtualMachineInstance unpaused")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a guest now."""

    report: VmReport | None = None
    pod: interfaces.Pod = interfaces.Pod()
    #: QEMU's; asked for when the guest is paused.
    run_state: str = ""
    #: Why the guest can't be brought to what its spec says; empty: it can.
    trouble: str = ""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of the status that change, and what is to be told once they have."""

    changes: dict[str, Any] = {}
    notices: tuple[Notice, ...] = ()


def decide(status: JsonObject, seen: Seen, now: str) -> Written:
    """What to write.

    :param status: as it is.
    :param now: RFC 3339.
    """
    if synchronized_writer(str(status.get("phase"))) != "virt-handler" and not _takes(status, seen):
        return Written()
    if seen.report is None and not seen.trouble:
        # We have just started: what was known before us stays until we have looked.
        return Written()
    if status.get("phase") != "Running" and not _runs(seen) and not _has_trouble(status, seen):
        # What there is to say of it can wait for the write that says that it runs.
        return Written()
    new = {
        **_phase(status, seen, now),
        **_interfaces(seen),
        **_system(status, seen),
        **_freezing(seen),
        "conditions": _conditions(status.get("conditions") or [], seen, now),
    }
    changes = {
        key: value for key, value in new.items() if value != (status.get(key) or _empty(value))
    }
    return Written(changes=changes, notices=tuple(_notices(status, changes, seen)))


def _empty(value: object) -> object:
    return [] if value == [] else None


def _takes(status: JsonObject, seen: Seen) -> bool:
    """Whether the launcher was found, and there is news of it, before virt-controller has told that it runs."""
    return status.get("phase") == "Scheduling" and (_runs(seen) or bool(seen.trouble))


def _phase(status: JsonObject, seen: Seen, now: str) -> dict[str, Any]:
    passed = []
    if status.get("phase") == "Scheduling":
        passed.append("Scheduled")
    if status.get("phase") in ("Scheduling", "Scheduled") and _runs(seen):
        passed.append("Running")
    if not passed:
        return {}
    entries = [{"phase": phase, "phaseTransitionTimestamp": now} for phase in passed]
    before = status.get("phaseTransitionTimestamps") or []
    return {"phase": passed[-1], "phaseTransitionTimestamps": [*before, *entries]}


def _runs(seen: Seen) -> bool:
    report = seen.report
    if report is None or report.phase not in _AT_WORK:
        return False
    # Stopped before it ran.
    return not (report.phase == "Stopping" and report.running_since is None)


def _has_trouble(status: JsonObject, seen: Seen) -> bool:
    """There is, or there was and it is told."""
    return bool(seen.trouble) or SYNCHRONIZED in _by_type(status.get("conditions"))


# --- what the guest's agent says -------------------------------------------------------------------------------------


def _interfaces(seen: Seen) -> dict[str, Any]:
    if seen.report is None or not seen.report.interfaces:
        return {}
    told = seen.report.agent.interfaces if seen.report.agent is not None else None
    return {"interfaces": interfaces.status(seen.report.interfaces, told, seen.pod)}


def _system(status: JsonObject, seen: Seen) -> dict[str, Any]:
    """What is known of the guest's system stays known when its agent is gone."""
    agent = seen.report.agent if seen.report is not None else None
    if agent is None or agent.os is None:
        return {}
    old = {k: v for k, v in (status.get("guestOSInfo") or {}).items() if v is not None}
    new: JsonObject = msgspec.to_builtins(agent.os)
    # A merge patch keeps what it doesn't name.
    return {} if new == old else {"guestOSInfo": {**dict.fromkeys(old), **new}}


def _freezing(seen: Seen) -> dict[str, Any]:
    if seen.report is None:
        return {}
    agent = seen.report.agent
    frozen = agent is not None and agent.freeze_status == "frozen"
    return {"fsFreezeStatus": "frozen" if frozen else None}


# --- conditions ------------------------------------------------------------------------------------------------------


def _conditions(old: list[JsonObject], seen: Seen, now: str) -> list[JsonObject]:
    wanted = {
        condition["type"]: condition
        for condition in (_paused(seen), *_agent(seen), _synchronized(seen))
        if condition is not None
    }
    of_guest = (PAUSED, AGENT, AGENT_TOO_OLD, CREDENTIALS) if seen.report is not None else ()
    new = []
    for condition in old:
        kind = condition.get("type")
        if kind not in (*of_guest, SYNCHRONIZED):
            new.append(condition)
        elif kind in wanted:
            new.append(_kept(condition, wanted.pop(kind), now))
    return [*new, *(_kept({}, condition, now) for condition in wanted.values())]


def _kept(old: JsonObject, new: JsonObject, now: str) -> JsonObject:
    """With the time of the last transition, which a new message alone is not."""
    if all(old.get(key, "") == new.get(key, "") for key in ("status", "reason", "message")):
        return old
    since = old.get("lastTransitionTime", now) if old.get("status") == new["status"] else now
    return {**new, "lastProbeTime": None, "lastTransitionTime": since}


def _condition(kind: str, status: str, reason: str = "", message: str = "") -> JsonObject:
    given = {"type": kind, "status": status, "reason": reason, "message": message}
    return {key: value for key, value in given.items() if value}


def _paused(seen: Seen) -> JsonObject | None:
    if seen.report is None or seen.report.phase != "Paused":
        return None
    if seen.run_state == IO_ERROR:
        message = "VMI was paused, low-level IO error detected"
        return _condition(PAUSED, "True", "PausedIOError", message)
    return _condition(PAUSED, "True", "PausedByUser", "VMI was paused by user")


def _agent(seen: Seen) -> tuple[JsonObject, ...]:
    if seen.report is None or seen.report.phase not in _AT_WORK or seen.report.agent is None:
        return ()
    return tuple(_agents_conditions(seen.report.agent))


def _agents_conditions(agent: AgentReport) -> Iterator[JsonObject]:
    if agent.connected:
        yield _condition(AGENT, "True")
    if agent.connected and agent.unsupported:
        yield _condition(AGENT_TOO_OLD, "True", agent.unsupported)
    if agent.credentials is not None:
        status = "True" if agent.credentials.synchronized else "False"
        yield _condition(CREDENTIALS, status, message=agent.credentials.message)


def _synchronized(seen: Seen) -> JsonObject | None:
    if not seen.trouble:
        return None
    reason = "Synchronizing with the Domain failed."
    return _condition(SYNCHRONIZED, "False", reason, seen.trouble)


# --- events ----------------------------------------------------------------------------------------------------------


def _notices(status: JsonObject, changes: dict[str, Any], seen: Seen) -> list[Notice]:
    if "phase" not in changes and "conditions" not in changes:
        return []
    before = _by_type(status.get("conditions"))
    after = _by_type(changes.get("conditions", status.get("conditions")))
    notices = [STARTED] if changes.get("phase") == "Running" else []
    if PAUSED in after and PAUSED not in before:
        notices.append(_PAUSED)
    if PAUSED in before and PAUSED not in after and seen.report and seen.report.phase == "Running":
        notices.append(_UNPAUSED)
    notices += _credential_notices(before.get(CREDENTIALS), after.get(CREDENTIALS))
    trouble = after.get(SYNCHRONIZED, {}).get("message", "")
    if trouble and trouble != before.get(SYNCHRONIZED, {}).get("message", ""):
        notices.append(Notice(reason="SyncFailed", message=trouble, warning=True))
    return notices


def _credential_notices(before: JsonObject | None, after: JsonObject | None) -> Iterator[Notice]:
    if after is None or after == before:
        return
    if after["status"] == "True":
        yield CREDENTIALS_SYNCED
    elif before is not None or after.get("message") != _OFFLINE:
        # That no agent is there yet, while the guest boots, is no news.
        message = f"Access credentials sync failed: {after.get('message', '')}"
        yield Notice(reason="AccessCredentialsSyncFailed", message=message, warning=True)


def _by_type(conditions: list[JsonObject] | None) -> dict[str, JsonObject]:
    return {str(condition.get("type")): condition for condition in conditions or []}
