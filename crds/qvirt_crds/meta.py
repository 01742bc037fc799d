"""The parts of Kubernetes' own types that a VM manifest carries (core/v1, meta/v1)."""

from __future__ import annotations

from typing import Any

from qvirt_crds.model import Model

#: A core/v1 object that we hand on as it is (affinity, tolerations ...). Its inside is checked by the API server.
JsonObject = dict[str, Any]


class ObjectMeta(Model, frozen=True, kw_only=True):
    """meta/v1 ObjectMeta, as far as clients and controllers write it."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[JsonObject, ...] = ()
    managed_fields: tuple[JsonObject, ...] = ()
    self_link: str = ""


class LocalObjectReference(Model, frozen=True, kw_only=True):
    """A Secret or ConfigMap of the same namespace."""

    name: str
