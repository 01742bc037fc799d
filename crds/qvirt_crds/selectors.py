"""Label selectors of meta/v1 (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from qvirt_crds.replicaset import LabelSelector, LabelSelectorRequirement


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether all of a selector holds. One that says nothing would match everything; here it matches nothing."""
    if not selector.match_labels and not selector.match_expressions:
        return False
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _holds(requirement, labels) for requirement in selector.match_expressions
    )


def as_text(selector: LabelSelector) -> str:
    """As URLs and ``status.labelSelector`` have it."""
    parts = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    return ",".join(parts + [_text(requirement) for requirement in selector.match_expressions])


def _holds(requirement: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None


def _text(requirement: LabelSelectorRequirement) -> str:
    key, values = requirement.key, ",".join(sorted(requirement.values))
    match requirement.operator:
        case "In":
            return f"{key} in ({values})"
        case "NotIn":
            return f"{key} notin ({values})"
        case "Exists":
            return key
        case "DoesNotExist":
            return f"!{key}"
