"""Requests to the subresource API."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit

from qvirt_launcher.cli.cluster.errors import ClusterError, ClusterRefused
from qvirt_launcher.cli.cluster.kubeconfig import Target

_GROUP: Final = "/apis/subresources.kubevirt.io/v1"
_SECONDS: Final = 60.0


def path(namespace: str, kind: str, name: str, verb: str) -> str:
    """Of a subresource. :param kind: ``virtualmachines`` or ``virtualmachineinstances``."""
    return f"{_GROUP}/namespaces/{quote(namespace)}/{kind}/{quote(name)}/{verb}"


def request(
    target: Target, method: str, where: str, options: Mapping[str, object] | None = None
) -> bytes:
    """The answer's body.

    :raise ClusterRefused: the answer is an error.
    :raise ClusterError: there is none.
    """
    parts = urlsplit(target.server)
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port or 443, context=target.tls, timeout=_SECONDS
    )
    body = json.dumps(options) if options else None
    headers = {"Accept": "application/json", **target.headers}
    if body:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, parts.path.rstrip("/") + where, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ClusterError(f"{target.server}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if answer.status >= 300:
        raise ClusterRefused(answer.status, message_of(content) or answer.reason)
    return content


def message_of(body: bytes) -> str:
    """Of a Status; of anything else its text."""
    try:
        found = json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip()
    message = found.get("message") if isinstance(found, dict) else None
    return str(message or body.decode(errors="replace").strip())
