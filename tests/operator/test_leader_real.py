"""Two virt-controllers, as processes with their manifest's rights, on a real API server: one leads, the other takes over."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.control_plane import ApiServer
from tests.operator.conftest import CONTROLLER, eventually

from qvirt_kube.client import Kube

LEASE = "/apis/coordination.k8s.io/v1/namespaces/kubevirt/leases/virt-controller"


class Replica:
    """One process."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def url(self) -> str | None:
        found = re.search(r"answers probes on port (\d+)", self.log.read_text())
        return f"http://127.0.0.1:{found[1]}" if found else None

    async def ready(self) -> int | None:
        return await asyncio.to_thread(self._ask)

    def _ask(self) -> int | None:
        if self.url is None:
            return None
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return None

    async def becomes(self, status: int) -> None:
        async def look() -> bool | None:
            return (await self.ready()) == status or None

        # The limit that a failover has.
        await eventually(look, within=15)


class Replicas:
    def __init__(self, server: ApiServer, folder: Path, namespace: str) -> None:
        self._server = server
        self._folder = folder
        self._namespace = namespace
        self.all: list[Replica] = []

    async def start(self, name: str) -> Replica:
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "qvirt_operator", "--launcher-image=launcher"),
                *(
                    f"--identity={name}",
                    f"--watch-namespace={self._namespace}",
                    "--namespace=kubevirt",
                ),
                *(f"--kubeconfig={self._server.kubeconfig(CONTROLLER)}",),
                *("--health-host=127.0.0.1", "--health-port=0"),
                stdout=output,
                stderr=output,
                env={key: value for key, value in os.environ.items() if key != "KUBECONFIG"},
            )
        replica = Replica(process, log)
        self.all.append(replica)
        return replica

    async def stop(self) -> None:
        for replica in self.all:
            if replica.process.returncode is None:
                replica.process.kill()
            await replica.process.wait()


@pytest.fixture
async def replicas(
    api_server: ApiServer, tmp_path: Path, namespace: str, kube: Kube
) -> AsyncIterator[Replicas]:
    found = Replicas(api_server, tmp_path, namespace)
    yield found
    await found.stop()
    await kube.delete(LEASE)


def manifest(name: str) -> dict[str, Any]:
    domain = {"devices": {}, "memory": {"guest": "64Mi"}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {"runStrategy": "Always", "template": {"spec": {"domain": domain}}},
    }


async def test_the_standby_takes_over_from_a_killed_leader_without_a_second_pod(
    replicas: Replicas, kube: Kube, namespace: str
) -> None:
    first = await replicas.start("first")
    await first.becomes(200)
    second = await replicas.start("second")
    await second.becomes(503)
    names = [f"vm{number}" for number in range(12)]
    path = f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachines"
    for name in names[:6]:
        await kube.create(path, manifest(name))
    first.process.send_signal(signal.SIGKILL)
    for name in names[6:]:
        await kube.create(path, manifest(name))
    await second.becomes(200)

    async def all_there() -> list[str] | None:
        pods = (await kube.get(f"/api/v1/namespaces/{namespace}/pods"))["items"]
        found = [pod["metadata"]["annotations"]["kubevirt.io/domain"] for pod in pods]
        return found if set(found) == set(names) else None

    found = await eventually(all_there)
    assert sorted(found) == sorted(names)
    lease = await kube.get(LEASE)
    assert lease["spec"]["holderIdentity"] == "second"
    assert lease["spec"]["leaseTransitions"] == 2


async def test_a_leader_that_is_told_to_stop_gives_the_lease_back(
    replicas: Replicas, kube: Kube
) -> None:
    first = await replicas.start("first")
    await first.becomes(200)
    first.process.terminate()
    async with asyncio.timeout(15):
        status = await first.process.wait()
    assert status == 0, first.log.read_text()
    assert (await kube.get(LEASE))["spec"]["holderIdentity"] == ""


async def test_a_leader_whose_lease_was_taken_ends(replicas: Replicas, kube: Kube) -> None:
    first = await replicas.start("first")
    await first.becomes(200)
    await kube.patch(LEASE, {"spec": {"holderIdentity": "somebody"}})
    async with asyncio.timeout(15):
        status = await first.process.wait()
    assert status == 1
    assert "somebody has the lease now" in first.log.read_text()
