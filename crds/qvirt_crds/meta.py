"""The parts of Kubernetes' own types that a VM manifest carries (core/v1, meta/v1)."""

from __future__ import annotations

from typing import Any, Literal

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


class Secret(Model, frozen=True, kw_only=True):
    """core/v1 Secret: ``data`` is base64, ``stringData`` is plain and wins."""

    api_version: Literal["v1"]
    kind: Literal["Secret"]
    metadata: ObjectMeta
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}
    type: str = ""
    immutable: bool = False


class ConfigMap(Model, frozen=True, kw_only=True):
    """core/v1 ConfigMap: ``data`` is plain, ``binaryData`` is base64."""

    api_version: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: ObjectMeta
    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}
    immutable: bool = False
