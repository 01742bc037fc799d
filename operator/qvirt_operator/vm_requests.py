"""What users asked a VirtualMachine for (``status.stateChangeRequests``), and what of it is left to do (pure)."""

from __future__ import annotations

from qvirt_operator.decisions import Target
from qvirt_operator.views import Object, Vmi
from qvirt_operator.vm_seen import RERUN, Seen


def asks(requests: list[Object], *actions: str) -> bool:
    """Whether one of these actions is asked for."""
    return any(request.get("action") in actions for request in requests)


def pending(seen: Seen) -> list[Object]:
    """Without those that are done. They are done in their order: a restart's Start waits for its Stop."""
    raw = seen.vm.raw.get("stateChangeRequests")
    left = [r for r in raw if isinstance(r, dict)] if isinstance(raw, list) else []
    while left and _is_done(seen.vmi, left[0]):
        del left[0]
    return left


def _is_done(vmi: Vmi | None, request: Object) -> bool:
    """A Start when an instance lives, a Stop when its instance is gone."""
    match request.get("action"):
        case "Start":
            return vmi is not None and not vmi.final and not vmi.metadata.deleting
        case "Stop":
            return vmi is None or request.get("uid") != vmi.metadata.uid
        case _:
            return True


def after(seen: Seen, requests: list[Object], delete: Target | None) -> list[Object]:
    """The requests that remain; a rerun after a failure is one."""
    vmi = seen.vmi
    rerun = (
        seen.vm.strategy == "RerunOnFailure"
        and delete is not None
        and vmi is not None
        and vmi.phase == "Failed"
        and not asks(requests, "Start", "Stop")
    )
    return [*requests, RERUN] if rerun else requests
