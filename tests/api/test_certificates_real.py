"""Replicas of virt-api on a real API server, with the rights of the manifest and no more."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

from tests.api.conftest import API, VirtApi
from tests.control_plane import ApiServer

from qvirt_api import authority
from qvirt_api.certificates import Lives
from qvirt_api.keeper import Keeper, Report
from qvirt_api.trust import TARGETS
from qvirt_crds.names import API_SECRET, CA_BUNDLE_KEY, CA_CONFIG_MAP, CA_SECRET
from qvirt_kube.client import Kube
from qvirt_kube.errors import Conflict, NotFound

CORE = "/api/v1/namespaces/kubevirt"


async def test_three_replicas_start_at_once(
    api_server: ApiServer, virt_api: VirtApi, kube: Kube
) -> None:
    """virt-api's own keeper runs, too: four, of which each comes to the same certificates."""
    for name in (CA_SECRET, API_SECRET):
        await kube.delete(f"{CORE}/secrets/{name}")
    await kube.delete(f"{CORE}/configmaps/{CA_CONFIG_MAP}")
    reports: list[Report] = []
    async with AsyncExitStack() as stack:
        keepers = []
        for _ in range(3):
            own = await stack.enter_async_context(Kube(api_server.kubeconfig(API)))
            keepers.append(Keeper(own, "kubevirt", reports.append))
        async with asyncio.timeout(60):
            while True:
                looks = await asyncio.gather(*(k.look() for k in keepers), return_exceptions=True)
                assert all(isinstance(look, bool | Conflict) for look in looks), looks
                if all(look is True for look in looks):
                    break
    assert len({report.serving for report in reports[-3:]}) == 1
    bundle = (await kube.get(f"{CORE}/configmaps/{CA_CONFIG_MAP}"))["data"][CA_BUNDLE_KEY]
    assert bundle.count("BEGIN CERTIFICATE") == 1
    encoded = base64.b64encode(bundle.encode()).decode()
    for target in TARGETS:
        assert encoded in str(await _or_nothing(kube, target.path)) or target.kind == "apiservice"


async def _or_nothing(kube: Kube, path: str) -> object:
    try:
        return await kube.get(path)
    except NotFound:
        return ""


async def test_a_whole_rotation_under_a_running_api_server(
    api_server: ApiServer, virt_api: VirtApi, kube: Kube
) -> None:
    """Days pass for a second replica; the API server gets through to virt-api all the time."""
    days = timedelta(0)
    lives = Lives(authority=timedelta(days=90), certificate=timedelta(days=14))
    serials = set()
    async with Kube(api_server.kubeconfig(API)) as own:
        keeper = Keeper(
            own, "kubevirt", lambda _: None, lives=lives, now=lambda: datetime.now(UTC) + days
        )
        for day in (0, 12, 24, 75, 76, 77):
            days = timedelta(days=day)
            for _ in range(10):
                try:
                    if await keeper.look():
                        break
                except Conflict:
                    continue
            # What the running replica serves is still trusted, and a new API server connection is made.
            secret = await kube.get(f"{CORE}/secrets/{API_SECRET}")
            pem = base64.b64decode(secret["data"]["tls.crt"]).decode()
            serials.add(authority.read_certificate(pem).key)
            vm = {
                "apiVersion": "kubevirt.io/v1",
                "kind": "VirtualMachine",
                "metadata": {"generateName": "x-"},
                "spec": {
                    "runStrategy": "Halted",
                    "template": {"spec": {"domain": {"devices": {}, "memory": {"guest": "64M"}}}},
                },
            }
            await kube.create(
                "/apis/kubevirt.io/v1/namespaces/default/virtualmachines", vm, dryRun="All"
            )
    assert len(serials) >= 4
