"""Asking components and the API server how they are. Every question has a deadline of a few seconds."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from qvirt_cluster.commands import run
from qvirt_cluster.components import Health
from qvirt_cluster.errors import CommandFailed
from qvirt_cluster.layout import API_PORT, NODE_POD_CIDR, Layout

_DEADLINE: Final = 5.0


def sickness(layout: Layout, health: Health) -> str:
    """Why a component is not healthy, in a few words; empty: it is healthy."""
    if health.command:
        try:
            run(*health.command, deadline=_DEADLINE)
        except CommandFailed as error:
            return str(error).splitlines()[0]
        return ""
    try:
        _ask(layout, urllib.request.Request(health.url), health.certificate)
    except (OSError, http.client.HTTPException) as error:
        return f"{health.url}: {_reason(error)}"
    return ""


def give_pod_network(layout: Layout, node: str) -> str:
    """Write the pods' network into a node that has none; why it can't be done yet, empty: it has one.

    kubelet reports a node Ready at once when it has one, without it up to 10 s later.
    """
    path = f"/api/v1/nodes/{node}"
    patch = {"spec": {"podCIDR": NODE_POD_CIDR, "podCIDRs": [NODE_POD_CIDR]}}
    try:
        if not _api(layout, path)["spec"].get("podCIDR"):
            _api(layout, path, patch)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"node {node} is not registered: {_reason(error)}"
    return ""


def node_condition(layout: Layout, node: str) -> str:
    """Why the node is not Ready; empty: it is."""
    try:
        found = _api(layout, f"/api/v1/nodes/{node}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"node {node} is not registered: {_reason(error)}"
    with suppress(KeyError, TypeError):
        for condition in found["status"]["conditions"]:
            if condition["type"] == "Ready":
                return "" if condition["status"] == "True" else str(condition["message"])
    return f"node {node} has reported no condition yet"


def default_account(layout: Layout) -> str:
    """Why pods can't be created in namespace default yet (its service account is missing); empty: they can."""
    try:
        _api(layout, "/api/v1/namespaces/default/serviceaccounts/default")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"service account default/default: {_reason(error)}"
    return ""


def _api(
    layout: Layout, path: str, patch: Mapping[str, object] | None = None
) -> dict[str, dict[str, list[dict[str, str]]]]:
    """One of the API server's objects, after a merge patch if one is given."""
    request = urllib.request.Request(f"https://127.0.0.1:{API_PORT}{path}")
    if patch is not None:
        request.data, request.method = json.dumps(patch).encode(), "PATCH"
        request.add_header("Content-Type", "application/merge-patch+json")
    found: dict[str, dict[str, list[dict[str, str]]]] = json.loads(_ask(layout, request, "admin"))
    return found


def _ask(layout: Layout, request: urllib.request.Request, certificate: str) -> bytes:
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if request.type == "https":
        context = ssl.create_default_context(cafile=str(layout.certificate("ca")))
        if certificate:
            context.load_cert_chain(layout.certificate(certificate), layout.key(certificate))
        handlers.append(urllib.request.HTTPSHandler(context=context))
    with urllib.request.build_opener(*handlers).open(request, timeout=_DEADLINE) as answer:
        body: bytes = answer.read(1 << 20)
    return body


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        with suppress(OSError):
            return f"HTTP {error.code} {error.read(200).decode(errors='replace').strip()}"
    return str(error)
