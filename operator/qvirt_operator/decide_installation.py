"""What a KubeVirt object is told of its installation (pure): whether it works, and which of its settings are not obeyed.

Words are KubeVirt's, as its tools wait for ``condition=Available`` and for the phase Deployed; ``ConfigurationObeyed`` is
ours.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from qvirt_crds.configuration import Settled
from qvirt_crds.errors import Cause
from qvirt_crds.model import Model
from qvirt_crds.version import VERSION
from qvirt_operator.conditions import condition, merge_patch, merged
from qvirt_operator.decisions import Event
from qvirt_operator.views import Condition, Meta, Object, convert, status_of, timestamp

OBEYED: Final = "ConfigurationObeyed"
_UNSUPPORTED: Final = "UnsupportedSettings"
#: Seconds until the next look at the components.
_SOON: Final = 10.0
_LATER: Final = 60.0
_MOST_CAUSES: Final = 30


class Component(Model, frozen=True, kw_only=True):
    """A part of the installation, and whether it works."""

    name: str
    #: Empty: it does.
    trouble: str = ""


class InstallationDecision(Model, frozen=True, kw_only=True):
    """A merge patch of the status, what to tell, and when to look again."""

    status: Object = {}
    events: tuple[Event, ...] = ()
    again: float | None = None


def decide_installation(
    kubevirt: Object, settled: Settled, components: tuple[Component, ...], now: datetime
) -> InstallationDecision:
    """For the object whose settings hold."""
    before = status_of(kubevirt)
    troubled = tuple(part for part in components if part.trouble)
    deployed = before.get("phase") == "Deployed" or not troubled
    status: Object = {
        "phase": "Deployed" if deployed else "Deploying",
        "operatorVersion": VERSION,
        "targetKubeVirtVersion": VERSION,
        "observedGeneration": convert(kubevirt["metadata"], Meta).generation,
        "defaultArchitecture": "amd64",
    }
    if deployed:
        status["observedKubeVirtVersion"] = VERSION
    wanted = {c.type: c for c in (*_health(troubled, deployed), _settings(settled.ignored))}
    status["conditions"] = merged(before.get("conditions"), wanted, timestamp(now))
    return InstallationDecision(
        status=merge_patch(before, status),
        events=_events(before, settled.ignored),
        again=_SOON if troubled else _LATER,
    )


def decide_spare(kubevirt: Object, why: str, now: datetime) -> InstallationDecision:
    """For an object that nobody obeys."""
    before = status_of(kubevirt)
    wanted = {"Synchronized": condition("Synchronized", False, "ExistingDeployment", why)}
    conditions = merged(before.get("conditions"), wanted, timestamp(now))
    return InstallationDecision(status=merge_patch(before, {"conditions": conditions}))


def _health(troubled: tuple[Component, ...], deployed: bool) -> tuple[Condition, ...]:
    created = condition("Created", True, "AllResourcesCreated", "All resources were created.")
    if not troubled:
        reason, ready = "AllComponentsReady", "All components are ready."
        return (
            condition("Available", True, reason, ready),
            condition("Progressing", False, reason, ready),
            condition("Degraded", False, reason, ready),
            created,
        )
    reason = "ComponentsNotReady" if deployed else "DeploymentInProgress"
    message = "; ".join(f"{part.name}: {part.trouble}" for part in troubled)
    return (
        condition("Available", False, reason, message),
        condition("Progressing", not deployed, reason, message),
        condition("Degraded", deployed, reason, message),
        created,
    )


def _settings(ignored: tuple[Cause, ...]) -> Condition:
    if not ignored:
        return condition(OBEYED, True, "AllSettingsObeyed", "Every setting of this object holds.")
    return condition(OBEYED, False, _UNSUPPORTED, _list(ignored))


def _list(ignored: tuple[Cause, ...]) -> str:
    shown = [str(cause) for cause in ignored[:_MOST_CAUSES]]
    more = len(ignored) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _events(before: Object, ignored: tuple[Cause, ...]) -> tuple[Event, ...]:
    conditions = before.get("conditions")
    had = conditions if isinstance(conditions, list) else []
    message = _list(ignored)
    told = any(c.get("type") == OBEYED and c.get("message") == message for c in had)
    if not ignored or told:
        return ()
    return (Event(type="Warning", reason=_UNSUPPORTED, message=message),)
