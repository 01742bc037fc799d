"""AdmissionReview v1 on the wire: what is asked, and the two kinds of answers (pure)."""

from __future__ import annotations

import base64
from typing import Any, Final, Literal

import msgspec

from qvirt_api.errors import BadReview
from qvirt_crds.errors import Cause
from qvirt_crds.meta import JsonObject

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]

_REVIEW: Final = "admission.k8s.io/v1"
#: KubeVirt's limit on causes in a message.
_TOLD: Final = 10


class GroupVersionKind(msgspec.Struct, frozen=True, kw_only=True):
    """Of the object as the user sent it."""

    group: str = ""
    version: str = ""
    kind: str = ""


class GroupVersionResource(msgspec.Struct, frozen=True, kw_only=True):
    """Of the URL that the user sent it to."""

    group: str = ""
    version: str = ""
    resource: str = ""


class UserInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks."""

    username: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = {}


class Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One write that somebody attempts. Fields that newer API servers send are let pass."""

    uid: str
    kind: GroupVersionKind
    resource: GroupVersionResource
    operation: Operation
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    user_info: UserInfo = UserInfo()
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None
    dry_run: bool | None = None


class _Review(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: Request


def read(body: bytes) -> Request:
    """:raise BadReview: it is not an AdmissionReview."""
    try:
        return msgspec.json.decode(body, type=_Review).request
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadReview(f"expected an AdmissionReview of {_REVIEW}: {error}") from error


def allowed(
    request: Request, patch: list[JsonObject] | None = None, warnings: tuple[str, ...] = ()
) -> JsonObject:
    """Yes, with these changes (JSON patch), and something to tell the user."""
    response: JsonObject = {"uid": request.uid, "allowed": True}
    if patch:
        text = base64.b64encode(msgspec.json.encode(patch)).decode()
        response |= {"patchType": "JSONPatch", "patch": text}
    if warnings:
        response["warnings"] = list(warnings)
    return _answer(response)


def refused(request: Request, causes: tuple[Cause, ...]) -> JsonObject:
    """No, for these reasons: 422 with a StatusCause each, as KubeVirt has it."""
    told = [sentence(cause) for cause in causes[:_TOLD]]
    message = ", ".join(told)
    if len(causes) > _TOLD:
        message += f", and {len(causes) - _TOLD} more validation errors"
    details = {
        "name": request.name,
        "group": request.kind.group,
        "kind": request.kind.kind,
        "causes": [
            {"reason": "FieldValueInvalid", "message": cause.message, "field": cause.path}
            for cause in causes
        ],
    }
    status = {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": message,
        "details": details,
    }
    return _answer({"uid": request.uid, "allowed": False, "status": status})


def forbidden(request: Request, message: str) -> JsonObject:
    """No, whatever the fields hold."""
    status = {"status": "Failure", "code": 400, "message": message}
    return _answer({"uid": request.uid, "allowed": False, "status": status})


def not_now(request: Request, message: str) -> JsonObject:
    """No, but ask again: what evictions are told that must wait."""
    reason = "TooManyRequests"
    status = {"status": "Failure", "code": 429, "reason": reason, "message": message}
    return _answer({"uid": request.uid, "allowed": False, "status": status})


def sentence(cause: Cause) -> str:
    """A cause as people read it: with its path, which many of KubeVirt's messages bring along."""
    there = cause.path.lower() in cause.message.lower()
    return cause.message if there else f"{cause.path}: {cause.message}"


def _answer(response: JsonObject) -> JsonObject:
    return {"apiVersion": _REVIEW, "kind": "AdmissionReview", "response": response}
