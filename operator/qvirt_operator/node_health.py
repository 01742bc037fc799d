"""Which nodes have lost their virt-handler (pure): names, rhythm and words are KubeVirt's.

A node without one starts no guests; those that run there go on, as nobody can know from here that they don't.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from qvirt_crds.names import HEARTBEAT, SCHEDULABLE
from qvirt_operator.decisions import Event
from qvirt_operator.views import Meta, convert

Object = dict[str, Any]

#: Handlers say that they are there every minute or so (up to 132 s in KubeVirt's).
PATIENCE: Final = timedelta(minutes=5)
#: Reason of the Events, and of the instances that fail by it.
UNRESPONSIVE: Final = "NodeUnresponsive"


def responsive(node: Object | None, now: datetime) -> bool:
    """Whether a node's virt-handler has been heard of lately; a node that is gone has none. Never heard of: not yet lost.

    :param node: with its metadata; None: there is no such node.
    """
    if node is None:
        return False
    said = convert(node["metadata"], Meta).annotations.get(HEARTBEAT)
    if said is None:
        return True
    try:
        beat = msgspec.convert(said, datetime, strict=False)
    except msgspec.ValidationError:
        return False
    if beat.tzinfo is None:
        return False
    return now - beat <= PATIENCE


def to_close(nodes: Iterable[Object], now: datetime) -> tuple[Object, ...]:
    """The nodes that take guests by their label, and have nobody who would start them."""
    return tuple(
        node
        for node in nodes
        if convert(node["metadata"], Meta).labels.get(SCHEDULABLE) == "true"
        and not responsive(node, now)
    )


def lost(used: Iterable[str], nodes: Iterable[Object], now: datetime) -> frozenset[str]:
    """Those of the nodes in use that are gone or silent."""
    known = {node["metadata"]["name"]: node for node in nodes}
    return frozenset(name for name in used if not responsive(known.get(name), now))


def closing(node: Object) -> tuple[Object, Event]:
    """What is to be done with a node of `to_close`: a merge patch, and what is told."""
    metadata = node["metadata"]
    patch: Object = {
        "metadata": {
            # If it has been heard of since, this must not be written.
            "resourceVersion": metadata["resourceVersion"],
            "labels": {SCHEDULABLE: "false"},
        }
    }
    said = metadata["annotations"][HEARTBEAT]
    message = f"virt-handler on node {metadata['name']} is not responsive since {said}"
    return patch, Event(reason=UNRESPONSIVE, message=message)


def failing(node: str) -> Event:
    """What is told about an instance that is lost with its node."""
    message = f"virt-handler on node {node} is not responsive, marking VMI as failed"
    return Event(reason=UNRESPONSIVE, message=message)
