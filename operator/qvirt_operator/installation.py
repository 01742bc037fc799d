"""The KubeVirt object: observe it and the installation's parts, decide (`decide_installation`), tell; and hand its settings on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from qvirt_crds.configuration import Configuration, settle
from qvirt_crds.kubevirt import NAME
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import NotFound
from qvirt_operator import paths
from qvirt_operator.decide_installation import (
    Component,
    InstallationDecision,
    decide_installation,
    decide_spare,
)
from qvirt_operator.events import Recorder
from qvirt_operator.views import Meta, convert
from qvirt_operator.work import Key
from qvirt_pods.settings import Settings

_log = logging.getLogger(__name__)

#: The installation's parts: path of their kind, name, fields of the status that count those that work and those wanted.
_PARTS: Final = (
    (paths.deployments, "virt-api", "readyReplicas", ""),
    (paths.deployments, "virt-controller", "readyReplicas", ""),
    (paths.daemon_sets, "virt-handler", "numberReady", "desiredNumberScheduled"),
)


class Installation:
    """Knows the settings in force, and keeps the status of the object that they are from.

    :param flags: what virt-controller was started with; the object's settings come on top.
    :param namespace: of the installation; objects elsewhere are not obeyed.
    """

    def __init__(
        self,
        kube: Kube,
        flags: Settings,
        namespace: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._flags = flags
        self._namespace = namespace
        self._now = now
        self._recorder = Recorder(kube, "virt-operator", now)
        self._configuration: Configuration | None = None

    async def configuration(self) -> Configuration:
        """What holds now; read from the API server once, then kept up to date by `reconcile`."""
        if self._configuration is None:
            return self._take(await self._read(self._namespace, NAME))
        return self._configuration

    async def settings(self) -> Settings:
        """How launcher pods are made now."""
        return self._flags.configured(await self.configuration())

    async def reconcile(self, key: Key) -> float | None:
        """Take one step for a KubeVirt object. See `work.Reconcile`."""
        found = await self._read(key.namespace, key.name)
        ours = (key.namespace, key.name) == (self._namespace, NAME)
        if ours:
            self._take(found)
        if found is None:
            return None
        decision = await self._decide(found) if ours else self._spare(found)
        if decision.status:
            metadata = {"resourceVersion": convert(found["metadata"], Meta).resource_version}
            path = f"{paths.kubevirts(key.namespace, key.name)}/status"
            await self._kube.patch(path, {"metadata": metadata, "status": decision.status})
        for event in decision.events:
            await self._recorder.record(found, event)
        return decision.again

    async def _decide(self, found: Object) -> InstallationDecision:
        return decide_installation(found, settle(found), await self._components(), self._now())

    def _spare(self, found: Object) -> InstallationDecision:
        why = f"qvirt obeys the KubeVirt object {NAME} in the namespace {self._namespace}"
        return decide_spare(found, why, self._now())

    async def _read(self, namespace: str, name: str) -> Object | None:
        try:
            return await self._kube.get(paths.kubevirts(namespace, name))
        except NotFound:
            return None

    def _take(self, found: Object | None) -> Configuration:
        configuration = settle(found).configuration
        if configuration != self._configuration:
            _log.info("settings: %s", configuration)
        self._configuration = configuration
        return configuration

    async def _components(self) -> tuple[Component, ...]:
        return tuple([await self._component(*part) for part in _PARTS])

    async def _component(
        self, path: Callable[[str, str], str], name: str, ready: str, wanted: str
    ) -> Component:
        try:
            found = await self._kube.get(path(self._namespace, name))
        except NotFound:
            return Component(name=name, trouble="is not there")
        status = found.get("status") or {}
        # Of a Deployment one is enough: the other virt-controller stands by and is never ready.
        have, want = status.get(ready, 0), status.get(wanted, 0) if wanted else 1
        if have < want or want == 0:
            return Component(name=name, trouble=f"{have} of {want} ready")
        return Component(name=name)
