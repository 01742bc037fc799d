"""A private network in a pod; its ports reach the guest."""

from __future__ import annotations

import pytest

from qvirt_crds.devices import Port
from qvirt_netsetup.request import InterfaceRequest, NetworkRequest

pytestmark = [pytest.mark.root]

_ANSWER = "printf 'HTTP/1.0 200 OK\\r\\n\\r\\nfrom-%s' $(cat name)"


def request(*ports: Port) -> NetworkRequest:
    return NetworkRequest(
        verb="up",
        state_dir="",
        name="vm1",
        dns=("10.96.0.10", "fd88::53"),
        interfaces=(InterfaceRequest(name="default", mode="masquerade", ports=ports),),
    )
