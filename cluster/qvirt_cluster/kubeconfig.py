"""kubeconfig files, with certificates inside so that they may be copied elsewhere. JSON is YAML."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from qvirt_cluster.layout import API_PORT, Layout


def write_kubeconfigs(layout: Layout, address: str) -> None:
    """Write the administrator's and those of the components.

    :param address: where others reach the API server; the components take 127.0.0.1.
    """
    for who in ("controller-manager", "scheduler", "kubelet", "kube-proxy"):
        _write(layout.kubeconfig(who), kubeconfig(layout, who, "127.0.0.1"))
    _write(layout.admin_kubeconfig, kubeconfig(layout, "admin", address))


def kubeconfig(layout: Layout, who: str, address: str) -> str:
    """:param who: the name of a certificate."""
    name = "qvirt-cluster"
    cluster = {
        "server": f"https://{address}:{API_PORT}",
        "certificate-authority-data": _encoded(layout.certificate("ca")),
    }
    user = {
        "client-certificate-data": _encoded(layout.certificate(who)),
        "client-key-data": _encoded(layout.key(who)),
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": who, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": who}}],
        "current-context": name,
    }
    return json.dumps(document, indent=1) + "\n"


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _write(path: Path, text: str) -> None:
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_name(f"{path.name}.partial")
    partial.touch(mode=0o600)
    partial.chmod(0o600)
    partial.write_text(text)
    partial.rename(path)
