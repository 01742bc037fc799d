"""Certificates over years, with a clock of the test's: whoever trusts us meets none that it can't check."""

from __future__ import annotations

import asyncio
import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.api.fake_kube import FakeKube

from qvirt_api import authority, certificates, trust, vault
from qvirt_api.authority import Identity
from qvirt_api.certificates import OVERLAP, Lives, identities
from qvirt_api.errors import BadCertificate
from qvirt_api.keeper import Keeper, Report
from qvirt_crds.names import (
    API_SECRET,
    CA_BUNDLE_KEY,
    CA_CONFIG_MAP,
    CA_SECRET,
    HANDLER_CLIENT_SECRET,
    HANDLER_SECRET,
)
from qvirt_kube.errors import Conflict

Object = dict[str, Any]

START = datetime(2026, 1, 1, tzinfo=UTC)
SECRETS = "/api/v1/namespaces/kubevirt/secrets"
CONFIG_MAP = f"/api/v1/namespaces/kubevirt/configmaps/{CA_CONFIG_MAP}"
LIVES = Lives(authority=timedelta(days=10), certificate=timedelta(days=2))
LEAVES = (API_SECRET, HANDLER_SECRET, HANDLER_CLIENT_SECRET)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Cluster:
    """The objects that virt-api looks after, and replicas of it."""

    def __init__(self, lives: Lives = LIVES) -> None:
        self.kube = FakeKube()
        self.clock = Clock()
        self.lives = lives
        self.reports: list[Report] = []
        clients = [{"name": "one", "clientConfig": {}}, {"name": "two", "clientConfig": {}}]
        for target in trust.TARGETS:
            body: Object = {"metadata": {"name": target.path.rpartition("/")[2]}}
            match target.kind:
                case "webhooks":
                    body["webhooks"] = clients
                case "conversion":
                    webhook: Object = {"clientConfig": {}}
                    body["spec"] = {"conversion": {"strategy": "Webhook", "webhook": webhook}}
                case "apiservice":
                    body["spec"] = {"group": "subresources.kubevirt.io"}
            self.kube.put(target.path, body)
        self.kube.writes.clear()

    def keeper(self) -> Keeper:
        tell = self.reports.append
        return Keeper(self.kube.as_kube(), "kubevirt", tell, lives=self.lives, now=self.clock)

    async def settle(self, keeper: Keeper) -> None:
        for _ in range(10):
            if await keeper.look():
                return
        raise AssertionError("it never settles")

    def certificate(self, name: str) -> str:
        data = self.kube.objects[f"{SECRETS}/{name}"]["data"]
        return base64.b64decode(data["tls.crt"]).decode()

    def bundle(self) -> list[str]:
        text = self.kube.objects[CONFIG_MAP]["data"][CA_BUNDLE_KEY]
        return re.findall("-----BEGIN.*?END CERTIFICATE-----\n", text, re.DOTALL)

    def bundles_of_targets(self) -> set[str]:
        found = set()
        for target in trust.TARGETS:
            held = self.kube.objects[target.path]
            found |= set(re.findall(r"'caBundle': '([^']*)'", str(held)))
        return found


async def test_from_nothing() -> None:
    cluster = Cluster()
    await cluster.settle(cluster.keeper())
    (ca,) = cluster.bundle()
    for name in LEAVES:
        assert authority.signed_by(cluster.certificate(name), [ca])
    assert cluster.bundles_of_targets() == {vault.encode(ca)}
    report = cluster.reports[-1]
    assert report.settled
    assert report.bundle == ca
    assert report.serving is not None
    assert report.serving.certificate == cluster.certificate(API_SECRET)
    # Nothing is written when nothing is to be done.
    cluster.kube.writes.clear()
    assert await cluster.keeper().look()
    assert cluster.kube.writes == []


async def test_who_is_named() -> None:
    cluster = Cluster()
    await cluster.settle(cluster.keeper())
    for name, identity in identities("kubevirt").items():
        facts = authority.read_certificate(cluster.certificate(name))
        named = Identity(
            common_name=facts.common_name, dns_names=facts.dns_names, usage=facts.usages[0]
        )
        assert named == identity
    assert "virt-api.kubevirt.svc" in identities("kubevirt")[API_SECRET].dns_names


@settings(max_examples=5, phases=(Phase.explicit, Phase.generate))
@given(
    steps=st.lists(st.integers(min_value=1, max_value=36), min_size=10, max_size=20),
    days=st.integers(min_value=10, max_value=12),
)
async def test_clients_that_learn_late_can_always_check(steps: list[int], days: int) -> None:
    """A client knows the bundle of half an hour ago, at worst; what is served now it can check by that."""
    cluster = Cluster(Lives(authority=timedelta(days=days), certificate=timedelta(days=2)))
    keeper = cluster.keeper()
    await cluster.settle(keeper)
    known = [cluster.bundle()] * 3
    signers: set[str] = set()
    last = cluster.clock.now
    for hours in steps:
        cluster.clock.now += timedelta(hours=hours)
        # A virt-api that looks as often as ours does, for more than an hour.
        for _ in range(8):
            await cluster.settle(keeper)
            for name in LEAVES:
                served = cluster.certificate(name)
                facts = authority.read_certificate(served)
                signers.add(facts.signer)
                assert facts.ends > cluster.clock.now
                if cluster.clock.now - last <= OVERLAP:
                    assert authority.signed_by(served, known[0]), (
                        "a client does not know the signer"
                    )
            known = [*known[1:], cluster.bundle()]
            last = cluster.clock.now
            cluster.clock.now += OVERLAP / 3
    if sum(steps) > days * 24:
        assert len(signers) > 1


async def test_a_cluster_that_slept_for_years_wakes() -> None:
    cluster = Cluster()
    await cluster.settle(cluster.keeper())
    before = cluster.bundle()
    cluster.clock.now += timedelta(days=1000)
    await cluster.settle(cluster.keeper())
    after = cluster.bundle()
    assert not set(before) & set(after)
    assert authority.signed_by(cluster.certificate(API_SECRET), after)


async def test_renewed_before_a_fifth_of_its_life_is_left() -> None:
    cluster = Cluster()
    await cluster.settle(cluster.keeper())
    first = cluster.certificate(API_SECRET)
    cluster.clock.now += LIVES.certificate * 0.79
    await cluster.settle(cluster.keeper())
    assert cluster.certificate(API_SECRET) == first
    cluster.clock.now += LIVES.certificate * 0.02
    await cluster.settle(cluster.keeper())
    assert cluster.certificate(API_SECRET) != first


async def test_no_new_authority_signs_before_everybody_trusts_it() -> None:
    cluster = Cluster()
    keeper = cluster.keeper()
    await cluster.settle(keeper)
    (old,) = cluster.bundle()
    gone = cluster.kube.objects.pop(trust.TARGETS[0].path)
    cluster.clock.now += LIVES.authority * 0.85
    for _ in range(5):
        await keeper.look()
        cluster.clock.now += OVERLAP / 2
    assert len(cluster.bundle()) == 2
    assert authority.signed_by(cluster.certificate(API_SECRET), [old])
    cluster.kube.put(trust.TARGETS[0].path, gone)
    for _ in range(5):
        await keeper.look()
    assert not authority.signed_by(cluster.certificate(API_SECRET), [old])
    assert old in cluster.bundle(), "what it has signed is in use elsewhere"


@pytest.mark.parametrize("replicas", [2, 5])
async def test_replicas_that_race_agree(replicas: int) -> None:
    cluster = Cluster()
    keepers = [cluster.keeper() for _ in range(replicas)]
    conflicts = 0
    for moment in (timedelta(0), LIVES.certificate, LIVES.authority * 0.9, LIVES.authority):
        cluster.clock.now += moment
        cluster.kube.writes.clear()
        while True:
            looks = await asyncio.gather(*(k.look() for k in keepers), return_exceptions=True)
            assert all(isinstance(look, bool | Conflict) for look in looks), looks
            conflicts += sum(isinstance(look, Conflict) for look in looks)
            if all(look is True for look in looks):
                break
        assert {r.serving for r in cluster.reports[-replicas:]} == {
            vault.pair_of(cluster.kube.objects[f"{SECRETS}/{API_SECRET}"])
        }
        for name in LEAVES:
            assert authority.signed_by(cluster.certificate(name), cluster.bundle())
            assert cluster.kube.writes.count(f"{SECRETS}/{name}") <= 2
    assert conflicts > 0, "they never met"


@pytest.mark.parametrize("spoil", ["", "bm90IGEgY2VydGlmaWNhdGU=", "%%%", None])
@pytest.mark.parametrize("name", [CA_SECRET, API_SECRET])
@pytest.mark.parametrize("key", ["tls.crt", "tls.key"])
async def test_what_somebody_has_spoilt_is_made_anew(
    name: str, key: str, spoil: str | None
) -> None:
    cluster = Cluster()
    await cluster.settle(cluster.keeper())
    held = cluster.kube.objects[f"{SECRETS}/{name}"]
    cluster.kube.put(f"{SECRETS}/{name}", {**held, "data": {**held["data"], key: spoil}})
    await cluster.settle(cluster.keeper())
    assert authority.signed_by(cluster.certificate(API_SECRET), cluster.bundle())


async def test_a_key_of_another_certificate_is_made_anew() -> None:
    cluster = Cluster()
    await cluster.settle(cluster.keeper())
    path, other = f"{SECRETS}/{API_SECRET}", f"{SECRETS}/{HANDLER_SECRET}"
    held = cluster.kube.objects[path]
    key = cluster.kube.objects[other]["data"]["tls.key"]
    cluster.kube.put(path, {**held, "data": {**held["data"], "tls.key": key}})
    with pytest.raises(BadCertificate, match="not the certificate's"):
        authority.read(
            authority.Pair(
                certificate=cluster.certificate(API_SECRET),
                key=base64.b64decode(key).decode(),
            )
        )
    await cluster.settle(cluster.keeper())
    assert cluster.reports[-1].serving is not None


async def test_a_bundle_that_somebody_has_dropped_comes_back() -> None:
    cluster = Cluster()
    await cluster.settle(cluster.keeper())
    target = trust.TARGETS[-1]
    cluster.kube.put(
        target.path, trust.with_bundle(target.kind, cluster.kube.objects[target.path], "")
    )
    del cluster.kube.objects[CONFIG_MAP]
    await cluster.settle(cluster.keeper())
    assert cluster.bundles_of_targets() == {vault.encode("".join(cluster.bundle()))}


def test_an_authority_outlives_what_it_signs() -> None:
    made = authority.make_authority("a", START, timedelta(days=1))
    identity = Identity(common_name="x", usage="client")
    pair = authority.issue(made, identity, START, timedelta(days=5))
    assert authority.read(pair).ends == authority.read(made).ends
    assert certificates.is_due(authority.read(pair), START + timedelta(hours=20))
