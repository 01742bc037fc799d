"""The handler's errors.

HandlerError
├── LauncherMissing   no process of this pod is a launcher (yet, or any more)
├── LauncherStrange   what answers on the socket isn't this VMI's launcher
└── SyncRefused       the launcher doesn't take the guest
"""

from __future__ import annotations

from typing import ClassVar

from qvirt_crds.errors import QvirtError, Retry


class HandlerError(QvirtError):
    """Root of this room's tree."""

    reason = "HandlerError"


class LauncherMissing(HandlerError):
    """The pod's launcher doesn't run on this node, or doesn't listen yet."""

    reason = "LauncherMissing"
    retry: ClassVar[Retry] = "soon"


class LauncherStrange(HandlerError):
    """Another process than the pod's launcher, or a launcher of another guest."""

    reason = "LauncherStrange"
    retry: ClassVar[Retry] = "later"


class SyncRefused(HandlerError):
    """``vm-sync`` failed."""

    reason = "SyncFailed"
    retry: ClassVar[Retry] = "soon"
