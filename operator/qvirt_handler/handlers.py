"""The door to kopf: the watch over this node's VMIs, narrowed by the API server, and nothing that kopf would write itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

import kopf

from qvirt_crds.names import GROUP
from qvirt_handler.keepers import Keepers
from qvirt_kube.address import in_cluster_server

PLURAL: Final = "virtualmachineinstances"
NODE_LABEL: Final = "kubevirt.io/nodeName"
#: Before kopf gives up on an API server that doesn't answer: about an hour. Our DaemonSet restarts us then.
_BACKOFFS: Final = (1.0, 1.0, 2.0, 3.0, 5.0, *(8.0 for _ in range(450)))


async def watch(keepers: Keepers, node: str, health: str | None) -> None:
    """Feed the keepers until SIGTERM or SIGINT.

    :param health: URL of the endpoint for the kubelet's probe, e.g. ``http://0.0.0.0:8081/healthz``.
    """
    await kopf.operator(
        registry=_registry(keepers),
        settings=_settings(node),
        clusterwide=True,
        standalone=True,
        liveness_endpoint=health,
    )


def _settings(node: str) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # Neither the CRDs nor the namespaces of the cluster are ours to look at.
    settings.scanning.disabled = True
    settings.watching.label_selectors[GROUP, PLURAL] = f"{NODE_LABEL}={node}"
    settings.networking.error_backoffs = _BACKOFFS
    return settings


def _registry(keepers: Keepers) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        # Both read files.
        return await asyncio.to_thread(_login, **kwargs)

    @kopf.on.event(GROUP, "v1", PLURAL, registry=registry)
    async def changed(type: str | None, body: kopf.Body, **_: Any) -> None:
        if type == "DELETED":
            keepers.drop(dict(body))
        else:
            keepers.update(dict(body))

    return registry


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    found = kopf.login_with_service_account(**kwargs)
    if found is None:
        return kopf.login_with_kubeconfig(**kwargs)
    # kopf would ask DNS for the API server.
    return replace(found, server=in_cluster_server(found.server))
