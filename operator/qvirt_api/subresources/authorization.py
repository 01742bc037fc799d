"""May they: one SubjectAccessReview for every call, by the API server's own authorizers."""

from __future__ import annotations

from typing import Final

from qvirt_api.subresources.authentication import User
from qvirt_api.subresources.table import GROUP, Endpoint, Method
from qvirt_crds.model import Model
from qvirt_kube.client import Kube, Object

_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_VERBS: Final[dict[Method, str]] = {"GET": "get", "PUT": "update"}


class Review(Model, frozen=True, kw_only=True):
    """The answer; the reason is the authorizer's own, or says what was asked."""

    allowed: bool
    reason: str


def attributes(endpoint: Endpoint, version: str, namespace: str, name: str) -> Object:
    """What access is asked for, as ``spec.resourceAttributes``. A port's number and protocol are no part of it."""
    found: Object = {"group": GROUP, "version": version, "verb": _VERBS[endpoint.method]}
    resource, _, subresource = endpoint.name.partition("/")
    found["resource"] = resource
    if endpoint.namespaced:
        found["namespace"] = namespace
    if subresource:
        found |= {"name": name, "subresource": subresource}
    return found


async def review(kube: Kube, user: User, wanted: Object) -> Review:
    """:raise KubeError: the API server gives no answer."""
    spec: Object = {"resourceAttributes": wanted, "user": user.name, "groups": [*user.groups]}
    if user.extra:
        spec["extra"] = {key: [*values] for key, values in user.extra.items()}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": spec,
    }
    status: Object = (await kube.create(_REVIEWS, body)).get("status") or {}
    allowed = status.get("allowed") is True and not status.get("denied")
    return Review(allowed=allowed, reason=str(status.get("reason") or _asked(user, wanted)))


def _asked(user: User, wanted: Object) -> str:
    what = "/".join(wanted[key] for key in ("resource", "subresource") if key in wanted)
    where = f' in the namespace "{wanted["namespace"]}"' if "namespace" in wanted else ""
    return f'User "{user.name}" cannot {wanted["verb"]} resource "{what}" in API group "{GROUP}"{where}'
