"""What virt-handler writes into a VMI's status (pure): from what is there, and from what was seen of the guest.

Only the handler's own fields (`qvirt_crds.status`); conditions of others are copied as they are. Names, reasons and messages
are KubeVirt's where it has them (reference: its node agent, v1.9).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from qvirt_crds.meta import JsonObject
from qvirt_crds.report import GuestInterface, VmReport
from qvirt_crds.status import FINAL

_AT_WORK: Final = ("Running", "Paused", "Stopping")
#: Ours among the conditions.
PAUSED: Final = "Paused"
AGENT: Final = "AgentConnected"
SYNCHRONIZED: Final = "GuestSynchronized"

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
_PAUSED: Final = Notice(reason="Paused", message="VirtualMachineInstance paused")
_UNPAUSED: Final = Notice(reason="Unpaused", message="VirtualMachineInstance unpaused")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a guest now."""

    report: VmReport | None = None
    #: Of the pod, the primary family first.
    addresses: tuple[str, ...] = ()
    #: Name of the guest's interface on the pod network, and of the pod's own for each interface.
    primary: str = ""
    pod_links: dict[str, str] = {}
    agent: bool = False
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
    if status.get("phase") in FINAL:
        return Written()
    new = {
        **_phase(status, seen, now),
        **_interfaces(seen),
        "conditions": _conditions(status.get("conditions") or [], seen, now),
    }
    changes = {
        key: value for key, value in new.items() if value != (status.get(key) or _empty(value))
    }
    return Written(changes=changes, notices=tuple(_notices(status, changes, seen)))


def _empty(value: object) -> object:
    return [] if value == [] else None


def _phase(status: JsonObject, seen: Seen, now: str) -> dict[str, Any]:
    at_work = seen.report is not None and seen.report.phase in _AT_WORK
    if status.get("phase") != "Scheduled" or not at_work or _never_ran(seen.report):
        return {}
    entry = {"phase": "Running", "phaseTransitionTimestamp": now}
    before = status.get("phaseTransitionTimestamps") or []
    return {"phase": "Running", "phaseTransitionTimestamps": [*before, entry]}


def _never_ran(report: VmReport | None) -> bool:
    return report is not None and report.phase == "Stopping" and report.running_since is None


# --- interfaces ------------------------------------------------------------------------------------------------------


def _interfaces(seen: Seen) -> dict[str, Any]:
    if seen.report is None or not seen.report.interfaces:
        return {}
    ordered = sorted(seen.report.interfaces, key=lambda interface: interface.name != seen.primary)
    return {"interfaces": [_interface(interface, seen) for interface in ordered]}


def _interface(interface: GuestInterface, seen: Seen) -> JsonObject:
    """The guest on the pod network answers at the pod's addresses, whatever it calls itself inside (masquerade)."""
    own = interface.name == seen.primary
    leased = (interface.address, interface.address6) if interface.leased else ()
    addresses = seen.addresses if own and seen.addresses else tuple(filter(None, leased))
    entry: JsonObject = {"name": interface.name, "mac": interface.mac, "infoSource": "domain"}
    if addresses:
        entry |= {"ipAddress": addresses[0], "ipAddresses": list(addresses)}
    if link := seen.pod_links.get(interface.name):
        entry["podInterfaceName"] = link
    return entry


# --- conditions ------------------------------------------------------------------------------------------------------


def _conditions(old: list[JsonObject], seen: Seen, now: str) -> list[JsonObject]:
    wanted = {
        condition["type"]: condition
        for condition in (_paused(seen), _agent(seen), _synchronized(seen))
        if condition is not None
    }
    new = []
    for condition in old:
        kind = condition.get("type")
        if kind not in (PAUSED, AGENT, SYNCHRONIZED):
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


def _agent(seen: Seen) -> JsonObject | None:
    working = seen.report is not None and seen.report.phase in _AT_WORK
    return _condition(AGENT, "True") if seen.agent and working else None


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
    trouble = after.get(SYNCHRONIZED, {}).get("message", "")
    if trouble and trouble != before.get(SYNCHRONIZED, {}).get("message", ""):
        notices.append(Notice(reason="SyncFailed", message=trouble, warning=True))
    return notices


def _by_type(conditions: list[JsonObject] | None) -> dict[str, JsonObject]:
    return {str(condition.get("type")): condition for condition in conditions or []}
