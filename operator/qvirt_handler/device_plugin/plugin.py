"""The door to gRPC: one resource, registered with the kubelet and served to it, again whenever the kubelet starts anew.

A kubelet that starts empties its directory of device plugins, their sockets included, and forgets who was registered.

By grpclib, which speaks gRPC with this process's own loop: grpcio brings threads and 13 MiB of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream

from qvirt_handler.device_plugin import device_plugin_v1beta1_pb2 as pb

_log = logging.getLogger(__name__)

_VERSION: Final = "v1beta1"
_KUBELET: Final = "kubelet.sock"
_REGISTER: Final = "/v1beta1.Registration/Register"
_SERVICE: Final = "v1beta1.DevicePlugin"
#: Seconds between looks at the sockets and at the device.
_PERIOD: Final = 2.0
_AGAIN: Final = 5.0
_REGISTER_SECONDS: Final = 10.0

_Watch: TypeAlias = "Stream[pb.Empty, pb.ListAndWatchResponse]"
_Allocation: TypeAlias = "Stream[pb.AllocateRequest, pb.AllocateResponse]"
_Options: TypeAlias = "Stream[pb.Empty, pb.DevicePluginOptions]"


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A device that any number of containers may share, up to ``count``."""

    #: E.g. ``devices.kubevirt.io/kvm``.
    resource: str
    #: Its path on the node and in the container.
    device: str
    count: int = 1000

    @property
    def name(self) -> str:
        """E.g. ``kvm``."""
        return self.resource.rpartition("/")[2]


class Plugin:
    """Offers a device to this node's pods while `run` runs.

    :param directory: the kubelet's for device plugins.
    :param trouble: why the device can't be used now; empty: it can.
    """

    def __init__(self, offer: Offer, directory: str, trouble: Callable[[], str]) -> None:
        self._offer = offer
        self._directory = directory
        self._trouble = trouble
        self._why = ""
        self._changed = asyncio.Event()

    @property
    def socket(self) -> str:
        """Path of our own."""
        return os.path.join(self._directory, f"qvirt-{self._offer.name}.sock")

    async def run(self) -> None:
        """Never returns. A kubelet that isn't there is waited for."""
        said = ""
        while True:
            try:
                await self._serve()
            except (OSError, TimeoutError, GRPCError, StreamTerminatedError) as error:
                trouble = _words(error)
                if trouble != said:
                    _log.warning("%s is not offered: %s", self._offer.resource, trouble)
                said = trouble
            else:
                said = ""
            await asyncio.sleep(_AGAIN)

    async def _serve(self) -> None:
        """From one start of the kubelet to the next.

        :raises OSError: no kubelet there.
        """
        kubelet = os.path.join(self._directory, _KUBELET)
        known = _identity(kubelet)
        if known is None:
            raise FileNotFoundError(f"{kubelet}: no kubelet listens there")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        self._look()
        server = _Server(_Service(self._methods()))
        await server.start(path=self.socket)
        try:
            own = _identity(self.socket)
            await self._register(kubelet)
            _log.info("%s: registered with the kubelet: %s", self._offer.resource, self._state())
            while _identity(kubelet) == known and _identity(self.socket) == own:
                await asyncio.sleep(_PERIOD)
                self._look()
            _log.info("%s: the kubelet has started anew", self._offer.resource)
        finally:
            server.close()
            await server.wait_closed()

    async def _register(self, kubelet: str) -> None:
        request = pb.RegisterRequest(
            version=_VERSION,
            endpoint=os.path.basename(self.socket),
            resource_name=self._offer.resource,
            options=pb.DevicePluginOptions(),
        )
        channel = Channel(path=kubelet)
        try:
            register = UnaryUnaryMethod[pb.RegisterRequest, pb.Empty](
                channel, _REGISTER, pb.RegisterRequest, pb.Empty
            )
            await register(request, timeout=_REGISTER_SECONDS)
        finally:
            channel.close()

    def _look(self) -> None:
        why = self._trouble()
        if why != self._why:
            self._why = why
            _log.info("%s: %s", self._offer.resource, self._state())
            self._changed.set()
            self._changed = asyncio.Event()

    def _state(self) -> str:
        return f"unhealthy: {self._why}" if self._why else "healthy"

    # --- the kubelet calls these ---

    def _methods(self) -> Mapping[str, Handler]:
        one, many = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            "GetDevicePluginOptions": Handler(self._options, one, pb.Empty, pb.DevicePluginOptions),
            "Allocate": Handler(self._allocate, one, pb.AllocateRequest, pb.AllocateResponse),
            "ListAndWatch": Handler(self._watch, many, pb.Empty, pb.ListAndWatchResponse),
        }

    async def _options(self, stream: _Options) -> None:
        await stream.recv_message()
        await stream.send_message(pb.DevicePluginOptions())

    async def _watch(self, stream: _Watch) -> None:
        await stream.recv_message()
        while True:
            changed = self._changed
            await stream.send_message(self._devices())
            await changed.wait()

    def _devices(self) -> pb.ListAndWatchResponse:
        health = "Unhealthy" if self._why else "Healthy"
        devices = [
            pb.Device(ID=f"{self._offer.name}{number}", health=health)
            for number in range(self._offer.count)
        ]
        return pb.ListAndWatchResponse(devices=devices)

    async def _allocate(self, stream: _Allocation) -> None:
        request = await stream.recv_message()
        self._look()
        if request is None or self._why:
            raise GRPCError(Status.FAILED_PRECONDITION, self._why or "no request")
        device = pb.DeviceSpec(
            container_path=self._offer.device, host_path=self._offer.device, permissions="rw"
        )
        answers = [
            pb.ContainerAllocateResponse(devices=[device]) for _ in request.container_requests
        ]
        await stream.send_message(pb.AllocateResponse(container_responses=answers))


class _Server(Server):
    """One that ends its connections when it ends."""

    def __init__(self, service: _Service) -> None:
        super().__init__([service])
        self._connections: weakref.WeakSet[H2Protocol] = weakref.WeakSet()

    def _protocol_factory(self) -> H2Protocol:
        connection = super()._protocol_factory()
        self._connections.add(connection)
        return connection

    def close(self) -> None:
        super().close()
        for connection in self._connections:
            # One that has just come in has no transport yet, and won't get a server.
            if hasattr(connection, "processor"):
                connection.processor.close("the server ends")


class _Service:
    def __init__(self, methods: Mapping[str, Handler]) -> None:
        self._methods = methods

    def __mapping__(self) -> dict[str, Handler]:
        return {f"/{_SERVICE}/{name}": handler for name, handler in self._methods.items()}


def _identity(path: str) -> tuple[int, int, int] | None:
    """Of a file; another one at the same place has another. None: there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _words(error: Exception) -> str:
    match error:
        case GRPCError():
            return f"the kubelet refuses: {error.status.name}: {error.message}"
        case TimeoutError():
            return f"no answer from the kubelet in {_REGISTER_SECONDS:.0f} s"
        case _:
            return str(error) or type(error).__name__
