"""The door to kopf: watches, and nothing else. A handler says "look at this object" and forgets what has happened.

kopf's own persistence (annotations, finalizers, retries) is never used: only its event handlers are.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import kopf

from qvirt_kube.address import in_cluster_server
from qvirt_operator.work import Key, Kind

Nudge = Callable[[Key], None]

_KINDS: Final[dict[str, Kind]] = {
    "VirtualMachine": "vm",
    "VirtualMachineInstance": "vmi",
    "VirtualMachineInstanceReplicaSet": "vmirs",
}
_STOP_DEADLINE: Final = 3.0
_DOMAIN: Final = "kubevirt.io/domain"


@asynccontextmanager
async def watching(nudge: Nudge, namespace: str | None) -> AsyncIterator[asyncio.Future[None]]:
    """Watch while inside; the future ends when kopf does, which it should not.

    kopf has a thread and a loop of its own, because at its end it cancels every task of its loop that is younger than itself.

    :param nudge: called in the caller's loop.
    :param namespace: only this one; None: the cluster.
    """
    for name in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    stop = threading.Event()

    def from_thread(callback: Callable[..., object], *arguments: object) -> None:
        # At the very end our loop may be gone before kopf's last words.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(callback, *arguments)

    def body() -> None:
        try:
            asyncio.run(_watch(lambda key: from_thread(nudge, key), stop, namespace))
        finally:
            from_thread(_done, ended)

    # A daemon: a leader that lost its lease must end, whatever kopf still waits for.
    thread = threading.Thread(target=body, name="watch", daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        stop.set()
        await asyncio.wait((ended,), timeout=_STOP_DEADLINE)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _watch(nudge: Nudge, stop: threading.Event, namespace: str | None) -> None:
    await kopf.operator(
        registry=_registry(nudge),
        settings=_settings(),
        standalone=True,
        stop_flag=stop,
        clusterwide=namespace is None,
        namespaces=[] if namespace is None else [namespace],
    )


def _registry(nudge: Nudge) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def look(body: kopf.Body, **_: Any) -> None:
        for key in keys(body):
            nudge(key)

    for plural in (
        "virtualmachines",
        "virtualmachineinstances",
        "virtualmachineinstancereplicasets",
    ):
        kopf.on.event("kubevirt.io", "v1", plural, registry=registry, id=plural)(look)
    kopf.on.event("v1", "pods", registry=registry, id="pods")(look)
    kopf.on.login(registry=registry, id="login")(_login)
    return registry


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    found = kopf.login_with_service_account(**kwargs)
    if found is None:
        return kopf.login_with_kubeconfig(**kwargs)
    # kopf would ask DNS for the API server.
    return replace(found, server=in_cluster_server(found.server))


def keys(body: Any) -> tuple[Key, ...]:
    """Whom an event concerns: the object, and whoever controls it."""
    metadata, kind = body.get("metadata", {}), body.get("kind", "")
    namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
    found = []
    if kind in _KINDS:
        found.append(Key(kind=_KINDS[kind], namespace=namespace, name=name))
        if kind == "VirtualMachineInstance":
            # The VM of the same name, also before it is the owner.
            found.append(Key(kind="vm", namespace=namespace, name=name))
    found += [
        Key(kind=_KINDS[owner["kind"]], namespace=namespace, name=owner["name"])
        for owner in metadata.get("ownerReferences", ())
        if owner.get("controller") and owner.get("kind") in _KINDS
    ]
    if domain := metadata.get("annotations", {}).get(_DOMAIN):
        # A pod that lost its owner by an orphaning deletion.
        found.append(Key(kind="vmi", namespace=namespace, name=domain))
    return tuple(dict.fromkeys(found))


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # `main` waits for our kinds before; then the set of kinds is fixed, and no list of all CRDs and namespaces is needed.
    settings.scanning.disabled = True
    settings.watching.server_timeout = 600
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (0.2, 0.5, 1, 2, 4)
    settings.queueing.exit_timeout = 1.0
    # Only launcher pods, filtered by the API server: our watch costs what VMs cost, not what the cluster holds.
    settings.watching.label_selectors["v1", "pods"] = "kubevirt.io=virt-launcher"
    return settings
