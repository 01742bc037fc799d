"""Keeps the certificates: observe, decide (`certificates`), act; every replica does, and none needs to lead.

Each write names the resourceVersion that it was decided on, and each first write is a create: of two replicas that want
the same one succeeds, and the other observes again and finds it done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from qvirt_api.authority import Pair, issue, read
from qvirt_api.certificates import Decision, Lives, Seen, decide, identities
from qvirt_api.trust import TARGETS, Target, with_bundle
from qvirt_api.vault import (
    Vault,
    after,
    authorities_of,
    bundle_of,
    certificate_data,
    config_map_bundle,
    data_of,
    encode,
    pair_of,
    vault_of,
)
from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model
from qvirt_crds.names import (
    API_SECRET,
    CA_BUNDLE_KEY,
    CA_CONFIG_MAP,
    CA_SECRET,
    GROUP,
    HANDLER_CLIENT_SECRET,
)
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import Conflict, KubeError, NotFound

_log = logging.getLogger(__name__)

#: Between two looks: when all is well, and when something is left to do.
_LOOK_EVERY: Final = 30.0
_RETRY: Final = 1.0


class Report(Model, frozen=True, kw_only=True):
    """How things stand after a look."""

    #: Our own server's certificate; None: there is none yet.
    serving: Pair | None
    #: What we show to virt-handler; None: there is none yet.
    client: Pair | None
    #: For connections from virt-api to virt-handler, and whom to trust there (PEM).
    bundle: str
    #: Everybody who must trust us does, and nothing is left to do.
    settled: bool


class _World(Model, frozen=True, kw_only=True):
    authorities: Object | None
    config_map: Object | None
    secrets: dict[str, Object | None]
    targets: dict[str, Object | None]


class Keeper:
    """:param tell: called with every look's report."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        tell: Callable[[Report], None],
        targets: Sequence[Target] = TARGETS,
        lives: Lives | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._tell = tell
        self._targets = targets
        self._lives = lives or Lives()
        self._now = now
        self._wanted = identities(namespace)

    async def run(self) -> None:
        """Until cancelled. An API server that can't be reached is asked again."""
        said = ""
        while True:
            try:
                settled = await self.look()
                said = ""
            except Conflict as error:
                _log.info("another replica was faster: %s", error)
                settled = False
            except KubeError as error:
                settled = False
                if said != str(error):
                    said = str(error)
                    _log.warning("certificates can't be looked after: %s", error)
            await asyncio.sleep(_LOOK_EVERY if settled else _RETRY)

    async def look(self) -> bool:
        """One look and what follows from it; whether nothing is left to do.

        :raise KubeError: the API server would not; `Conflict`: look again.
        """
        now = self._now()
        world = await self._observe()
        vault = vault_of(world.authorities)
        bundle = bundle_of(vault, now)
        published = self._is_published(world, bundle)
        pairs = {name: pair_of(secret) for name, secret in world.secrets.items()}
        seen = Seen(
            now=now,
            authorities=authorities_of(vault),
            certificates={name: read(pair) if pair else None for name, pair in pairs.items()},
            published=published,
        )
        decision = decide(seen, self._wanted)
        if decision.authorities is not None:
            _log.info("certificate authority: %s", decision.authorities)
            changed = after(decision.authorities, vault, now, self._lives)
            await self._write_secret(CA_SECRET, world.authorities, data_of(changed))
            return False
        published = published or await self._publish(world, bundle)
        issued = await self._issue(world, vault, decision, now)
        serving = issued.get(API_SECRET, pairs[API_SECRET])
        client = issued.get(HANDLER_CLIENT_SECRET, pairs[HANDLER_CLIENT_SECRET])
        settled = published and not issued
        self._tell(Report(serving=serving, client=client, bundle=bundle, settled=settled))
        return settled

    async def _observe(self) -> _World:
        return _World(
            authorities=await self._find(self._secret(CA_SECRET)),
            config_map=await self._find(self._config_map(CA_CONFIG_MAP)),
            secrets={name: await self._find(self._secret(name)) for name in self._wanted},
            targets={target.path: await self._find(target.path) for target in self._targets},
        )

    def _is_published(self, world: _World, bundle: str) -> bool:
        if not bundle or config_map_bundle(world.config_map) != bundle:
            return False
        for target in self._targets:
            held = world.targets[target.path]
            if held is None or held != with_bundle(target.kind, held, encode(bundle)):
                return False
        return True

    async def _publish(self, world: _World, bundle: str) -> bool:
        """Hand the bundle to everybody who is there; whether all were."""
        data = {CA_BUNDLE_KEY: bundle}
        if world.config_map is None:
            body = self._new("ConfigMap", CA_CONFIG_MAP, data)
            await self._kube.create(self._config_map(), body)
        elif config_map_bundle(world.config_map) != bundle:
            body = {**world.config_map, "data": data}
            await self._kube.replace(self._config_map(CA_CONFIG_MAP), body)
        complete = True
        for target in self._targets:
            held = world.targets[target.path]
            if held is None:
                complete = False
                continue
            changed = with_bundle(target.kind, held, encode(bundle))
            if changed != held:
                await self._kube.replace(target.path, changed)
                _log.info("%s trusts our authorities now", target.path)
        return complete

    async def _issue(
        self, world: _World, vault: Vault, decision: Decision, now: datetime
    ) -> dict[str, Pair]:
        issued: dict[str, Pair] = {}
        for name in decision.issue:
            assert vault.signer is not None, "the authorities come first"
            pair = issue(vault.signer, self._wanted[name], now, self._lives.certificate)
            await self._write_secret(name, world.secrets[name], certificate_data(pair))
            _log.info("issued the certificate in Secret %s", name)
            issued[name] = pair
        return issued

    async def _write_secret(self, name: str, held: Object | None, data: JsonObject) -> None:
        if held is None:
            body = self._new("Secret", name, data) | {"type": "kubernetes.io/tls"}
            await self._kube.create(self._secret(), body)
        else:
            await self._kube.replace(self._secret(name), {**held, "data": data})

    async def _find(self, path: str) -> Object | None:
        try:
            return await self._kube.get(path)
        except NotFound:
            return None

    def _new(self, kind: str, name: str, data: JsonObject) -> Object:
        metadata = {"name": name, "namespace": self._namespace, "labels": {GROUP: ""}}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}

    def _secret(self, name: str = "") -> str:
        path = f"/api/v1/namespaces/{self._namespace}/secrets"
        return f"{path}/{name}" if name else path

    def _config_map(self, name: str = "") -> str:
        path = f"/api/v1/namespaces/{self._namespace}/configmaps"
        return f"{path}/{name}" if name else path
