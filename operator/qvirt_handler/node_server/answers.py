"""What a request is refused with: Kubernetes' Status, in KubeVirt's words, so that virt-api can hand it on as it is."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from qvirt_handler.errors import HandlerError

_KIND: Final = "virtualmachineinstance.kubevirt.io"
#: HTTP status -> Kubernetes' word for it.
_REASONS: Final = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Refusal(HandlerError):
    """:param code: HTTP status."""

    reason = "Refusal"

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


def not_found(name: str) -> Refusal:
    """There is no such VMI on this node."""
    return Refusal(404, f'{_KIND} "{name}" not found')


def conflict(name: str, why: str) -> Refusal:
    """Not in the state that it is in."""
    return Refusal(409, f'Operation cannot be fulfilled on {_KIND} "{name}": {why}')


def status(code: int, message: str) -> web.Response:
    """A failure as an HTTP answer."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(code, "Unknown"),
        "code": code,
    }
    return web.Response(
        body=msgspec.json.encode(body), status=code, content_type="application/json"
    )


def document(value: object) -> web.Response:
    """Success with a JSON document."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
