"""From a VMI's name to its launcher: the VMI that we take care of, its process, a session or a socket of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from qvirt_crds.errors import QvirtError
from qvirt_crds.meta import JsonObject
from qvirt_crds.names import GROUP
from qvirt_crds.report import VmReport
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_handler import finder
from qvirt_handler.errors import LauncherMissing
from qvirt_handler.finder import Finder
from qvirt_handler.guest import decode, pods_of
from qvirt_handler.node_server.answers import Refusal, not_found
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError, NotFound
from qvirt_qmp.client import Monitor

_DIAL_SECONDS: Final = 5.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A VMI of this node, and the pods that may have its launcher."""

    vmi: JsonObject
    pods: tuple[str, ...]

    @property
    def name(self) -> str:
        """Without its namespace."""
        return str(self.vmi["metadata"]["name"])

    @property
    def uid(self) -> str:
        """The VMI's."""
        return str(self.vmi["metadata"]["uid"])

    @property
    def phase(self) -> str:
        """As its status has it."""
        return str((self.vmi.get("status") or {}).get("phase", ""))

    def spec(self) -> VirtualMachineInstance:
        """With defaults.

        :raises Refusal: it is of a shape that we don't know.
        """
        try:
            return decode(self.vmi)
        except (msgspec.ValidationError, QvirtError) as error:
            raise Refusal(500, str(error)) from error


class Reach:
    """:param known: the VMI of a namespace and name that this node takes care of; None: it knows none."""

    def __init__(
        self,
        kube: Kube,
        node: str,
        find: Finder,
        known: Callable[[str, str], JsonObject | None],
    ) -> None:
        self._kube = kube
        self._node = node
        self._find = find
        self._known = known

    async def target(self, namespace: str, name: str) -> Target:
        """The VMI; asked of the API server when the watch hasn't shown it (yet).

        :raises Refusal: there is none on this node.
        """
        vmi = self._known(namespace, name)
        if vmi is None:
            vmi = await self._read(namespace, name)
        return Target(vmi=vmi, pods=pods_of(vmi, self._node))

    async def _read(self, namespace: str, name: str) -> JsonObject:
        path = f"/apis/{GROUP}/v1/namespaces/{namespace}/virtualmachineinstances/{name}"
        try:
            vmi = await self._kube.get(path)
        except NotFound:
            raise not_found(name) from None
        except KubeError as error:
            raise Refusal(503, str(error)) from error
        if (vmi.get("status") or {}).get("nodeName") != self._node:
            raise Refusal(404, f"VMI {namespace}/{name} does not run on node {self._node}")
        return vmi

    @contextlib.asynccontextmanager
    async def session(self, target: Target) -> AsyncIterator[tuple[Monitor, VmReport]]:
        """A session with the launcher, and what it says of its guest.

        :raises LauncherMissing: it does not run (yet, or any more).
        """
        process, pod = self._launcher(target)
        with process:
            monitor = await finder.connect(self._find, process, pod)
        try:
            report = msgspec.convert(await monitor.execute("vm-query"), VmReport)
            if report.uid not in ("", target.uid):
                raise LauncherMissing("the launcher serves another guest")
            yield monitor, report
        finally:
            await monitor.aclose()

    async def dial(self, target: Target, name: str) -> socket.socket:
        """A connection to a socket in the launcher's run directory.

        :raises LauncherMissing: nobody listens.
        """
        process, pod = self._launcher(target)
        with process:
            try:
                async with asyncio.timeout(_DIAL_SECONDS):
                    return await finder.dial(self._find, process, pod, name)
            except TimeoutError as error:
                raise LauncherMissing(f"{name} is busy") from error

    def _launcher(self, target: Target) -> tuple[finder.Process, str]:
        for pod in target.pods:
            with contextlib.suppress(LauncherMissing):
                return self._find.find(pod), pod
        raise LauncherMissing("the VMI has no launcher on this node")
