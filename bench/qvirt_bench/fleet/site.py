"""A real API server with what an installation puts there, nodes that are only objects, and our components as processes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from qvirt_bench import smaps
from qvirt_bench.errors import BenchError
from qvirt_bench.fleet.api import Api
from qvirt_bench.image_root import ROOT
from qvirt_cluster.control_plane import ApiServer, NoPrograms, control_plane
from qvirt_crds import schema
from qvirt_crds.names import HEARTBEAT, INSTALL_NAMESPACE, SCHEDULABLE
from qvirt_handler.writer import now

_MANIFESTS: Final = ROOT / "operator" / "manifests"
_DEADLINE: Final = 60.0
_GLANCE: Final = 0.5
#: virt-controller takes a node for lost after 5 minutes.
_BEAT_SECONDS: Final = 60.0


@contextlib.asynccontextmanager
async def site(manifest: str) -> AsyncIterator[tuple[ApiServer, Api, str]]:
    """An API server with our kinds, the administrator's client, and a kubeconfig with a component's own rights.

    Webhooks are not called: nobody serves them.

    :param manifest: of the component, e.g. ``virt-controller``.
    :raise BenchError: Kubernetes' programs are not there.
    """
    account = f"system:serviceaccount:{INSTALL_NAMESPACE}:{manifest}"
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="qvirt-bench-"))
        try:
            server = stack.enter_context(control_plane(Path(folder), [account]))
        except NoPrograms as error:
            raise BenchError(str(error)) from error
        _install(server, manifest)
        async with Api(server.kubeconfig()) as api:
            yield server, api, server.kubeconfig(account)


def _install(server: ApiServer, manifest: str) -> None:
    definitions = schema.definitions()
    for definition in definitions:
        # That is virt-api's.
        definition["spec"].pop("conversion", None)
    crds = {"apiVersion": "v1", "kind": "List", "items": definitions}
    server.kubectl("apply", "-f", "-", stdin=msgspec.json.encode(crds).decode())
    kinds = [f"crd/{definition['metadata']['name']}" for definition in definitions]
    server.kubectl("wait", "--for=condition=Established", "--timeout=30s", *kinds)
    for name in ("00-namespace", manifest):
        server.kubectl("apply", "-f", str(_MANIFESTS / f"{name}.yaml"))


async def make_nodes(api: Api, names: Iterable[str]) -> None:
    """Nodes that take guests."""
    for name in names:
        labels, annotations = {SCHEDULABLE: "true"}, {HEARTBEAT: now()}
        metadata = {"name": name, "labels": labels, "annotations": annotations}
        await api.create("/api/v1/nodes", {"metadata": metadata})


async def beat(api: Api, names: Sequence[str]) -> None:
    """Say every minute that their virt-handlers live, until cancelled."""
    while True:
        for name in names:
            await asyncio.sleep(_BEAT_SECONDS / len(names))
            await api.patch(
                f"/api/v1/nodes/{name}", {"metadata": {"annotations": {HEARTBEAT: now()}}}
            )


class Component:
    """One of our processes, as its container would start it."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self._command = (sys.executable, "-P", "-m", module, *arguments)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def start(self) -> None:
        """Again, too."""
        self._stopping = False
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def stop(self) -> None:
        """As the kubelet does.

        :raise BenchError: it does not end in time.
        """
        assert self._process is not None
        self._stopping = True
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(_DEADLINE):
                await self._process.wait()
        except TimeoutError as error:
            self._process.kill()
            await self._process.wait()
            raise BenchError(f"it does not end:\n{self.log}") from error

    async def vigil(self) -> None:
        """For as long as it runs, or has been stopped. Never returns.

        :raise BenchError: it has ended by itself.
        """
        while True:
            process = self._process
            if process is not None:
                await process.wait()
            if process is self._process and not self._stopping:
                raise BenchError(f"it has ended:\n{self.log}")
            await asyncio.sleep(_GLANCE)

    @property
    def pid(self) -> int:
        """:raise BenchError: it has ended."""
        if self._process is None or self._process.returncode is not None:
            raise BenchError(f"it has ended:\n{self.log}")
        return self._process.pid

    @property
    def log(self) -> str:
        """The end of what it said."""
        return self._log.read_text(errors="replace")[-3000:]

    @property
    def pss(self) -> int:
        """Bytes, with its children's."""
        return smaps.of_processes(smaps.descendants(self.pid)).pss

    @property
    def seconds(self) -> float:
        """CPU time so far, with that of children that have ended."""
        return smaps.cpu_ticks(self.pid) / smaps.TICK

    async def rest(self, share: float, within: float) -> float:
        """Wait until it uses less than this share of a core for two seconds; returns when that began.

        :raise BenchError: it does not come to rest.
        """
        end = time.monotonic() + within
        while time.monotonic() < end:
            since, used = time.monotonic(), self.seconds
            await asyncio.sleep(2)
            if (self.seconds - used) / (time.monotonic() - since) < share:
                return since
        raise BenchError(f"it is still at work after {within:.0f} s:\n{self.log}")
