"""What virt-controller itself can refuse or fail at.

OperatorError
├── LeadershipLost   the lease could not be renewed in time, or another has it
└── UsageError       wrong flags
"""

from __future__ import annotations

from qvirt_crds.errors import QvirtError


class OperatorError(QvirtError):
    """Root of the room's errors."""


class LeadershipLost(OperatorError):
    """Another may be leading by now: stop acting at once."""

    reason = "LeadershipLost"


class UsageError(OperatorError):
    """A flag that makes no sense."""

    reason = "Usage"
