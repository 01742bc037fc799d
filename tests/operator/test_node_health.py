"""When a node's virt-handler counts as lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qvirt_operator import node_health

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def node(beat: str | None, schedulable: str | None = "true", name: str = "a") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "resourceVersion": "7"}
    if beat is not None:
        metadata["annotations"] = {"kubevirt.io/heartbeat": beat}
    if schedulable is not None:
        metadata["labels"] = {"kubevirt.io/schedulable": schedulable}
    return {"metadata": metadata}


def at(**ago: float) -> str:
    return (NOW - timedelta(**ago)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("beat", "responsive"),
    [
        (at(seconds=1), True),
        (at(minutes=5), True),
        (at(minutes=5, seconds=1), False),
        # Its clock is fast.
        (at(minutes=-10), True),
        ("2026-01-01T12:00:00+00:00", True),
        ("2026-01-01T12:00:00", False),
        ("soon", False),
        ("", False),
        # Never heard of: not lost either.
        (None, True),
    ],
)
def test_a_heartbeat(beat: str | None, responsive: bool) -> None:
    assert node_health.responsive(node(beat), NOW) is responsive


def test_a_node_that_is_gone() -> None:
    assert not node_health.responsive(None, NOW)
    assert node_health.lost({"a", "b"}, [node(at(seconds=1))], NOW) == {"b"}


@pytest.mark.parametrize(
    ("label", "closed"), [("true", True), ("false", False), (None, False), ("yes", False)]
)
def test_only_open_nodes_are_closed(label: str | None, closed: bool) -> None:
    silent = node(at(hours=1), label)
    assert bool(node_health.to_close([silent], NOW)) is closed
    assert not node_health.to_close([node(at(minutes=1), label)], NOW)


def test_what_closing_writes_and_tells() -> None:
    patch, event = node_health.closing(node(at(hours=1)))
    assert patch == {
        "metadata": {"resourceVersion": "7", "labels": {"kubevirt.io/schedulable": "false"}}
    }
    assert event.reason == "NodeUnresponsive"
    assert "a is not responsive since 2026-01-01T11:00:00Z" in event.message
