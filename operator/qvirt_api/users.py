"""Who is one of our own parts (pure)."""

from __future__ import annotations

from typing import Final

from qvirt_api.review import UserInfo
from qvirt_crds.names import INSTALL_NAMESPACE

_PREFIX: Final = f"system:serviceaccount:{INSTALL_NAMESPACE}:"
HANDLER: Final = f"{_PREFIX}virt-handler"
_OURS: Final = (HANDLER, f"{_PREFIX}virt-controller", f"{_PREFIX}virt-api")
#: Newer API servers say on which node a service account's token is used.
_NODE: Final = "authentication.kubernetes.io/node-name"


def is_ours(user: UserInfo) -> bool:
    """virt-controller, virt-handler or virt-api."""
    return user.username in _OURS


def handler_node(user: UserInfo) -> str | None:
    """The node of the virt-handler that asks; None: it is somebody else, or the API server can't tell."""
    if user.username != HANDLER:
        return None
    return next(iter(user.extra.get(_NODE, ())), None)
