"""One leader among the replicas, by a Lease (coordination.k8s.io/v1).

A candidate takes the lease when it is free, or when its holder has not touched it for `DURATION` seconds of the candidate's
own monotonic clock: clocks of nodes may differ. The holder stops acting when it could not renew for `RENEW_DEADLINE`
seconds, which is sooner. A stop gives the lease back, so that the standby takes over at its next look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from qvirt_crds.model import Model
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import Conflict, KubeError, NotFound
from qvirt_operator import paths
from qvirt_operator.errors import LeadershipLost

_log = logging.getLogger(__name__)

DURATION: Final = 10.0
RENEW_DEADLINE: Final = 8.0
RETRY_EVERY: Final = 1.5
#: For one try to renew, so that a connection that hangs leaves time for another.
_TRY: Final = 4.0


class Sighting(Model, frozen=True, kw_only=True):
    """What a candidate last saw of the lease, and when it saw that first."""

    holder: str
    renewed: str
    since: float


def claimable(
    seen: Sighting | None, spec: Object, identity: str, now: float
) -> tuple[Sighting, bool]:
    """Whether this candidate may take the lease (pure).

    :param seen: the last sighting.
    :param spec: the lease's spec as it is now.
    :param now: seconds of a monotonic clock.
    """
    holder = spec.get("holderIdentity") or ""
    renewed = str(spec.get("renewTime") or "")
    if seen is None or (seen.holder, seen.renewed) != (holder, renewed):
        seen = Sighting(holder=holder, renewed=renewed, since=now)
    duration = spec.get("leaseDurationSeconds")
    patience = float(duration) if isinstance(duration, int) and duration > 0 else DURATION
    return seen, holder in ("", identity) or now - seen.since > patience


def held(old: Object, identity: str, now: datetime) -> Object:
    """The lease's spec with this holder (pure)."""
    moment = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    same = old.get("holderIdentity") == identity
    changes = old.get("leaseTransitions") or 0
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": int(DURATION),
        "acquireTime": old.get("acquireTime", moment) if same else moment,
        "renewTime": moment,
        "leaseTransitions": changes if same else changes + 1,
    }


class Elector:
    """:param identity: unique among the replicas (the pod's name)."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._now = now
        self._lease: dict[str, Any] = {}

    async def acquire(self) -> None:
        """Wait until we lead. The API server may come and go meanwhile."""
        loop, seen = asyncio.get_running_loop(), None
        told = ""
        while True:
            try:
                lease = await self._read()
                seen, free = claimable(seen, lease.get("spec") or {}, self._identity, loop.time())
                if free:
                    await self._hold(lease)
                    _log.info("%s leads now", self._identity)
                    return
                if told != seen.holder:
                    told = seen.holder
                    _log.info("%s leads; standing by", told)
            except Conflict:
                _log.debug("another candidate was faster")
            except KubeError as error:
                _log.warning("the lease can't be read or written: %s", error)
            await asyncio.sleep(RETRY_EVERY)

    async def keep(self) -> None:
        """Renew until cancelled.

        :raise LeadershipLost: we may not act any more.
        """
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(RETRY_EVERY)
            started = loop.time()
            try:
                async with asyncio.timeout_at(min(started + _TRY, renewed + RENEW_DEADLINE)):
                    await self._hold(self._lease)
                renewed = started
            except Conflict as error:
                await self._check_holder(error)
            except (KubeError, TimeoutError) as error:
                if loop.time() >= renewed + RENEW_DEADLINE:
                    why = str(error) or "the API server is too slow"
                    message = f"the lease could not be renewed for {RENEW_DEADLINE:.0f} s: {why}"
                    raise LeadershipLost(message) from error
                _log.warning("the lease could not be renewed: %s", error)

    async def release(self) -> None:
        """Give the lease back, if it is ours; trouble is only logged, as the lease ends by itself."""
        try:
            lease = await self._read()
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                spec = {**lease["spec"], "holderIdentity": ""}
                await self._kube.replace(self._path, {**lease, "spec": spec})
                _log.info("%s has given the lease back", self._identity)
        except KubeError as error:
            _log.warning("the lease could not be given back: %s", error)

    @property
    def _path(self) -> str:
        return paths.leases(self._namespace, self._name)

    async def _read(self) -> Object:
        try:
            return await self._kube.get(self._path)
        except NotFound:
            return {}

    async def _hold(self, lease: Object) -> None:
        spec = held(lease.get("spec") or {}, self._identity, self._now())
        if lease:
            self._lease = await self._kube.replace(self._path, {**lease, "spec": spec})
            return
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": spec,
        }
        self._lease = await self._kube.create(paths.leases(self._namespace), body)

    async def _check_holder(self, cause: Conflict) -> None:
        """A write of ours whose answer was lost, or another's hand, makes ours look old; only a new holder counts."""
        lease = await self._read()
        holder = (lease.get("spec") or {}).get("holderIdentity")
        if holder != self._identity:
            raise LeadershipLost(f"{holder or 'nobody'} has the lease now") from cause
        self._lease = lease
