"""What the server's parts share: whether it is ready, the cluster's settings, and whom to trust."""

from __future__ import annotations

from qvirt_crds.configuration import DEFAULT, Configuration


class State:
    """Written by the background work of `main`, read by the routes."""

    def __init__(self) -> None:
        #: The certificates are in place, and everybody who must trust them does.
        self.ready = False
        #: Of the KubeVirt object.
        self.configuration: Configuration = DEFAULT
        #: Our authorities, as PEM: who signs virt-handler's certificates.
        self.bundle = ""
