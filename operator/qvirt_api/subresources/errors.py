"""What the API refuses, in Kubernetes' words: each error is the ``metav1.Status`` that the client gets.

QvirtError
└── StatusError     a code, a reason, a message (and about which object)
    └── DialFailed  the guest's port could not be reached
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from qvirt_crds.errors import QvirtError

Kind = Literal["virtualmachine", "virtualmachineinstance"]
_GROUP: Final = "kubevirt.io"


class StatusError(QvirtError):
    """:param status_reason: as apimachinery has it, e.g. ``Conflict``; the remedy is in the message."""

    reason = "SubresourceRefused"

    def __init__(
        self, code: int, status_reason: str, message: str, details: dict[str, object] | None = None
    ) -> None:
        self.code = code
        self.status_reason = status_reason
        self.message = message
        self.details = details or {}
        super().__init__(message)

    def body(self) -> bytes:
        """JSON of the Status."""
        status: dict[str, object] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.status_reason,
        }
        if self.details:
            status["details"] = self.details
        return msgspec.json.encode({**status, "code": self.code})


class DialFailed(StatusError):
    """The guest's port."""

    def __init__(self, cause: str) -> None:
        super().__init__(500, "InternalError", f"dialing VM: {cause}")


def _about(kind: Kind, name: str) -> dict[str, object]:
    return {"name": name, "group": _GROUP, "kind": kind}


def not_found(kind: Kind, name: str) -> StatusError:
    """There is no such object."""
    message = f'{kind}.{_GROUP} "{name}" not found'
    return StatusError(404, "NotFound", message, _about(kind, name))


def conflict(kind: Kind, name: str, text: str) -> StatusError:
    """The object's state is not one in which this can be done."""
    message = f'Operation cannot be fulfilled on {kind}.{_GROUP} "{name}": {text}'
    return StatusError(409, "Conflict", message, _about(kind, name))


def forbidden(kind: Kind, name: str, text: str) -> StatusError:
    """Nobody may do this with the object as it is."""
    message = f'{kind}.{_GROUP} "{name}" is forbidden: {text}'
    return StatusError(403, "Forbidden", message, _about(kind, name))


def bad_request(text: str) -> StatusError:
    """The request makes no sense, or (to a console) not yet."""
    return StatusError(400, "BadRequest", text)


def internal(text: str) -> StatusError:
    """Something behind this API failed."""
    return StatusError(
        500, "InternalError", f"Internal error occurred: {text}", {"causes": [{"message": text}]}
    )


def not_implemented(name: str, missing: str) -> StatusError:
    """:param missing: what is not there."""
    return StatusError(501, "NotImplemented", f"{name}: {missing}")
