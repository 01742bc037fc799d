"""What clients learn of the API: groups, versions, resources, and enough OpenAPI for kubectl (pure)."""

from __future__ import annotations

import re
from typing import Final

from qvirt_api.subresources.table import ENDPOINTS, GROUP, VERSIONS, Endpoint
from qvirt_crds.meta import JsonObject as Object

_DELEGATED: Final[Object] = {"description": "OK"}


def group() -> Object:
    """``/apis/<group>``: an APIGroup."""
    versions = [{"groupVersion": f"{GROUP}/{version}", "version": version} for version in VERSIONS]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def groups() -> Object:
    """``/apis``: an APIGroupList."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}


def resources(version: str) -> Object:
    """``/apis/<group>/<version>``: an APIResourceList. Entries say no more than their names, as KubeVirt's."""
    names: dict[str, bool] = {}
    for endpoint in ENDPOINTS:
        names.setdefault(endpoint.name, endpoint.namespaced)
    entries = [
        {"name": name, "singularName": "", "namespaced": namespaced, "kind": "", "verbs": []}
        for name, namespaced in names.items()
    ]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{GROUP}/{version}",
        "resources": entries,
    }


def paths() -> Object:
    """``/``: the roots."""
    bases = [f"/apis/{GROUP}", *(f"/apis/{GROUP}/{version}" for version in VERSIONS)]
    return {"paths": ["/apis", *bases, "/healthz", "/openapi/v2", "/openapi/v3", "/version"]}


def openapi_v2(version: str) -> Object:
    """``/openapi/v2``: Swagger 2.0 with every path; bodies are free objects.

    :param version: of qvirt.
    """
    found: Object = {}
    for base in VERSIONS:
        found |= _swagger_paths(base)
    return {
        "swagger": "2.0",
        "info": {"title": GROUP, "version": version},
        "paths": found,
        "definitions": {},
    }


def openapi_v3_index() -> Object:
    """``/openapi/v3``: where the document of each version is."""
    return {
        "paths": {
            f"apis/{GROUP}/{version}": {"serverRelativeURL": f"/openapi/v3/apis/{GROUP}/{version}"}
            for version in VERSIONS
        }
    }


def openapi_v3(served: str, version: str) -> Object:
    """The document of one served version.

    :param version: of qvirt.
    """
    found: Object = {}
    for endpoint in ENDPOINTS:
        for path in endpoint.paths:
            operation: Object = {
                "operationId": _operation(served, endpoint, path),
                "responses": {"200": _DELEGATED, "401": {"description": "Unauthorized"}},
                "parameters": [
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                    for name in _parameters(path)
                ],
            }
            if endpoint.method == "PUT":
                body: Object = {"content": {"application/json": {"schema": {"type": "object"}}}}
                operation["requestBody"] = body
            _add(found, f"/apis/{GROUP}/{served}{path}", endpoint, operation)
    return {"openapi": "3.0.0", "info": {"title": GROUP, "version": version}, "paths": found}


def _swagger_paths(base: str) -> Object:
    found: Object = {}
    for endpoint in ENDPOINTS:
        for path in endpoint.paths:
            parameters: list[Object] = [
                {"name": name, "in": "path", "required": True, "type": "string"}
                for name in _parameters(path)
            ]
            if endpoint.method == "PUT":
                parameters.append({"name": "body", "in": "body", "schema": {"type": "object"}})
            operation = {
                "operationId": _operation(base, endpoint, path),
                "parameters": parameters,
                "responses": {"200": _DELEGATED, "401": {"description": "Unauthorized"}},
            }
            _add(found, f"/apis/{GROUP}/{base}{path}", endpoint, operation)
    return found


def _add(found: Object, path: str, endpoint: Endpoint, operation: Object) -> None:
    found.setdefault(path, {})[endpoint.method.lower()] = operation


def _parameters(path: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", path)


def _operation(version: str, endpoint: Endpoint, path: str) -> str:
    """One in the whole document, as OpenAPI wants it."""
    words = re.split(r"\W+", endpoint.key)
    extra = [name for name in _parameters(path) if name in ("port", "protocol", "file")]
    return version + endpoint.method.title() + "".join(word.title() for word in [*words, *extra])
