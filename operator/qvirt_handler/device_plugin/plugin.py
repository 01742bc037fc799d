"""The door to gRPC: one resource, registered with the kubelet and served to it, again whenever the kubelet starts anew.

A kubelet that starts empties its directory of device plugins, their sockets included, and forgets who was registered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
import grpc.aio
import msgspec

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
_GRACE: Final = 0.5
#: Go's servers refuse the escaped path that gRPC takes for a Unix socket's authority.
_OPTIONS: Final = (("grpc.default_authority", "localhost"),)

if TYPE_CHECKING:
    _Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
    _Method: TypeAlias = grpc.RpcMethodHandler[Any, Any]


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
            except (OSError, RuntimeError, grpc.aio.AioRpcError) as error:
                # RuntimeError is gRPC's word for a socket that can't be made.
                trouble = (
                    str(error) if not isinstance(error, grpc.aio.AioRpcError) else _words(error)
                )
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
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self._handlers(),))
        server.add_insecure_port(f"unix://{self.socket}")
        await server.start()
        try:
            own = _identity(self.socket)
            await self._register(kubelet)
            _log.info("%s: registered with the kubelet: %s", self._offer.resource, self._state())
            while _identity(kubelet) == known and _identity(self.socket) == own:
                await asyncio.sleep(_PERIOD)
                self._look()
            _log.info("%s: the kubelet has started anew", self._offer.resource)
        finally:
            await server.stop(_GRACE)

    async def _register(self, kubelet: str) -> None:
        request = pb.RegisterRequest(
            version=_VERSION,
            endpoint=os.path.basename(self.socket),
            resource_name=self._offer.resource,
            options=pb.DevicePluginOptions(),
        )
        async with grpc.aio.insecure_channel(f"unix://{kubelet}", options=_OPTIONS) as channel:
            call = channel.unary_unary(
                _REGISTER,
                request_serializer=pb.RegisterRequest.SerializeToString,
                response_deserializer=pb.Empty.FromString,
            )
            await call(request, timeout=_REGISTER_SECONDS)

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

    def _handlers(self) -> grpc.GenericRpcHandler:
        def unary(
            answer: Callable[[Any, _Context], Awaitable[Any]], request: Any, response: Any
        ) -> _Method:
            return grpc.unary_unary_rpc_method_handler(
                answer, request.FromString, response.SerializeToString
            )

        methods = {
            "GetDevicePluginOptions": unary(self._options, pb.Empty, pb.DevicePluginOptions),
            "Allocate": unary(self._allocate, pb.AllocateRequest, pb.AllocateResponse),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                self._watch, pb.Empty.FromString, pb.ListAndWatchResponse.SerializeToString
            ),
        }
        return grpc.method_handlers_generic_handler(_SERVICE, methods)

    async def _options(self, _request: pb.Empty, _context: _Context) -> pb.DevicePluginOptions:
        return pb.DevicePluginOptions()

    async def _watch(
        self, _request: pb.Empty, _context: _Context
    ) -> AsyncIterator[pb.ListAndWatchResponse]:
        while True:
            changed = self._changed
            yield self._devices()
            await changed.wait()

    def _devices(self) -> pb.ListAndWatchResponse:
        health = "Unhealthy" if self._why else "Healthy"
        devices = [
            pb.Device(ID=f"{self._offer.name}{number}", health=health)
            for number in range(self._offer.count)
        ]
        return pb.ListAndWatchResponse(devices=devices)

    async def _allocate(
        self, request: pb.AllocateRequest, context: _Context
    ) -> pb.AllocateResponse:
        self._look()
        if self._why:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, self._why)
        device = pb.DeviceSpec(
            container_path=self._offer.device, host_path=self._offer.device, permissions="rw"
        )
        answers = [
            pb.ContainerAllocateResponse(devices=[device]) for _ in request.container_requests
        ]
        return pb.AllocateResponse(container_responses=answers)


def _identity(path: str) -> tuple[int, int, int] | None:
    """Of a file; another one at the same place has another. None: there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _words(error: grpc.aio.AioRpcError) -> str:
    return f"the kubelet refuses: {error.code().name}: {error.details()}"
