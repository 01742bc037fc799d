"""What can go wrong with a cluster.

LauncherError
└── ClusterError        no (usable) kubeconfig, or the API server can't be reached
    └── ClusterRefused  it answered, and said no
"""

from __future__ import annotations

from qvirt_launcher.errors import LauncherError


class ClusterError(LauncherError):
    """The cluster can't be talked to; the message says which file or address, and why."""

    reason = "Cluster"


class ClusterRefused(ClusterError):
    """:param status: HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)
