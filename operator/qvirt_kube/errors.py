"""What the API server can answer instead of an object, and that it can't even be asked.

NoAccess            nobody has told where it is, or how to log in
KubeError
├── NotFound        404
├── Conflict        409: changed in between, or already there
├── Refused         400, 403, 422: asking again gives the same answer
└── Unavailable     429, 5xx, no connection, no answer in time: ask again
"""

from __future__ import annotations

from typing import ClassVar

from qvirt_crds.errors import QvirtError, Retry


class NoAccess(QvirtError):
    """The message names the file, and what it lacks."""

    reason = "NoAccess"


class KubeError(QvirtError):
    """:param status: HTTP status; 0 when there was no answer at all.
    :param message: the API server's own words.
    """

    reason = "ApiServer"

    def __init__(self, what: str, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(f"{what}: {message}")


class NotFound(KubeError):
    """The object, or its kind, is not there."""

    reason = "NotFound"


class Conflict(KubeError):
    """Somebody was faster: observe again."""

    reason = "Conflict"
    retry: ClassVar[Retry] = "soon"


class Refused(KubeError):
    """The API server understood and said no."""

    reason = "Refused"


class Unavailable(KubeError):
    """No answer, or not now."""

    reason = "Unavailable"
    retry: ClassVar[Retry] = "soon"
