"""Words that all deciders speak: what is to be done, as data."""

from __future__ import annotations

from typing import Literal

from qvirt_crds.model import Model

#: ``source.component`` of events, as KubeVirt's (reference, events).
Component = Literal[
    "virtualmachine-controller", "virtualmachinereplicaset-controller", "virt-operator"
]


class Event(Model, frozen=True, kw_only=True):
    """A Kubernetes Event about the object that was decided on."""

    type: Literal["Normal", "Warning"] = "Normal"
    reason: str
    message: str


class Failure(Model, frozen=True, kw_only=True):
    """Why acting went wrong; decided on like everything else that is observed."""

    reason: str
    message: str


class Target(Model, frozen=True, kw_only=True):
    """An object to delete, if it still is that very one."""

    name: str
    uid: str
    #: None: as the object says itself.
    grace_seconds: int | None = None
