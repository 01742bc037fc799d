"""Where a pod finds the API server."""

from __future__ import annotations

import os


def in_cluster_server(default: str) -> str:
    """URL by the addresses that the kubelet gives each pod: they work in a cluster without DNS, names don't."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return default
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
