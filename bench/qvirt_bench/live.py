"""A real cluster on this machine with qvirt on it: the one that is there, else one for the time of a measurement.

The machine is the cluster's node: processes of pods are looked at through /proc.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from qvirt_bench.errors import BenchError
from qvirt_bench.image_root import ROOT
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import Conflict, KubeError, NotFound, Unavailable
from qvirt_launcher.cli.cluster import kubeconfig
from qvirt_launcher.cli.cluster.errors import ClusterError

REGISTRY: Final = "127.0.0.1:5005"
DEMO_IMAGE: Final = "qvirt/demo-guest:latest"
_DEMO: Final = ROOT / "build" / "guest" / "demo-guest.oci.tar"
_CLUSTER: Final = (sys.executable, str(ROOT / "cluster" / "cluster.py"))
_DEPLOY: Final = (sys.executable, str(ROOT / "operator" / "deploy.py"))
_DEADLINE: Final = 900.0
_GONE_SECONDS: Final = 180.0


class Live:
    """A connection to the cluster, in a namespace of our own."""

    def __init__(self, kube: Kube, config: str, namespace: str) -> None:
        self.kube = kube
        self.config = config
        self.namespace = namespace

    def target(self) -> kubeconfig.Target:
        """The API server as `qvirt console` and its like see it."""
        try:
            return kubeconfig.load([Path(self.config)], namespace=self.namespace)
        except ClusterError as error:
            raise BenchError(str(error)) from error

    def path(self, plural: str, name: str = "") -> str:
        """Of our objects: ``pods``, or a plural of kubevirt.io."""
        group = "/api/v1" if plural == "pods" else "/apis/kubevirt.io/v1"
        return f"{group}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    async def items(self, plural: str, **query: str) -> list[Object]:
        """All of a kind."""
        return (await self.kube.get(self.path(plural), **query)).get("items") or []

    async def parts(self) -> list[Object]:
        """qvirt's own pods."""
        listed = await self.kube.get("/api/v1/namespaces/kubevirt/pods")
        return listed.get("items") or []


@contextlib.asynccontextmanager
async def cluster(namespace: str) -> AsyncIterator[Live]:
    """The cluster of KUBECONFIG; else the machine's, else one that is brought up and goes again.

    :param namespace: made, and gone afterwards with all that is in it.
    :raise BenchError: there is none, and none can be had.
    """
    async with contextlib.AsyncExitStack() as stack:
        config = os.environ.get("KUBECONFIG") or await _machine(stack)
        await _run(
            *("skopeo", "copy", "--quiet", "--dest-tls-verify=false"),
            *(f"oci-archive:{_DEMO}", f"docker://{REGISTRY}/{DEMO_IMAGE}"),
        )
        kube = await stack.enter_async_context(Kube(config))
        await _make(kube, namespace)
        try:
            yield Live(kube, config, namespace)
        except BaseException:
            # What went wrong first is what is told.
            with contextlib.suppress(BenchError, KubeError):
                await remove(kube, namespace)
            raise
        await remove(kube, namespace)


async def _machine(stack: contextlib.AsyncExitStack) -> str:
    """The kubeconfig of the machine's cluster."""
    try:
        await _run(*_CLUSTER, "status")
    except BenchError:
        stack.push_async_callback(_run, *_CLUSTER, "down")
        await _run(*_CLUSTER, "up")
        config = (await _run(*_CLUSTER, "kubeconfig")).strip()
        await _run(*_DEPLOY, KUBECONFIG=config)
        return config
    return (await _run(*_CLUSTER, "kubeconfig")).strip()


async def _make(kube: Kube, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    try:
        await remove(kube, namespace)
        await kube.create("/api/v1/namespaces", body)
    except KubeError as error:
        raise BenchError(
            f"no cluster ({error}): set KUBECONFIG to one on this machine; make cluster"
        ) from error


async def remove(kube: Kube, namespace: str) -> None:
    """Delete a namespace and wait until it is gone.

    :raise BenchError: it stays.
    """
    path = f"/api/v1/namespaces/{namespace}"
    try:
        async with asyncio.timeout(_GONE_SECONDS):
            while True:
                # Conflict: on its way already.
                with contextlib.suppress(Conflict, Unavailable):
                    await kube.delete(path)
                await asyncio.sleep(1)
                with contextlib.suppress(Unavailable):
                    await kube.get(path)
    except NotFound:
        return
    except TimeoutError as error:
        raise BenchError(f"namespace {namespace} is not gone in {_GONE_SECONDS:.0f} s") from error


async def _run(*command: str, **environment: str) -> str:
    """What a command prints.

    :raise BenchError: it failed, with what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        async with asyncio.timeout(_DEADLINE):
            out, said = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise BenchError(f"{' '.join(command)}: {said.decode(errors='replace')[-2000:]}")
    return out.decode()
