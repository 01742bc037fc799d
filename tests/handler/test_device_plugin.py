"""The device plugin against a kubelet's side of the protocol: registers, lists, allocates, and again after its restart."""

from __future__ import annotations

import asyncio
import contextlib
import filecmp
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from qvirt_handler.device_plugin import device_plugin_v1beta1_pb2 as pb
from qvirt_handler.device_plugin import generate
from qvirt_handler.device_plugin.plugin import Offer, Plugin

DEADLINE = 30.0
OFFER = Offer(resource="devices.kubevirt.io/thing", device="/dev/thing", count=3)


class Kubelet:
    """Takes registrations, and calls back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registered: asyncio.Queue[pb.RegisterRequest] = asyncio.Queue()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """As one does: whoever was registered is forgotten, sockets and all."""
        for path in self.folder.iterdir():
            path.unlink()
        register = grpc.unary_unary_rpc_method_handler(
            self._register, pb.RegisterRequest.FromString, pb.Empty.SerializeToString
        )
        methods = {"Register": register}
        service = grpc.method_handlers_generic_handler("v1beta1.Registration", methods)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((service,))
        self._server.add_insecure_port(f"unix://{self.folder}/kubelet.sock")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    async def _register(self, request: pb.RegisterRequest, _context: Any) -> pb.Empty:
        await self.registered.put(request)
        return pb.Empty()

    @contextlib.asynccontextmanager
    async def plugin(self) -> AsyncIterator[Caller]:
        """Connected to the plugin that registers next."""
        async with asyncio.timeout(DEADLINE):
            request = await self.registered.get()
        assert (request.version, request.resource_name) == ("v1beta1", OFFER.resource)
        target = f"unix://{self.folder}/{request.endpoint}"
        async with grpc.aio.insecure_channel(target) as channel:
            yield Caller(channel)


class Caller:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def watch(self) -> Any:
        call = self._channel.unary_stream(
            "/v1beta1.DevicePlugin/ListAndWatch",
            request_serializer=pb.Empty.SerializeToString,
            response_deserializer=pb.ListAndWatchResponse.FromString,
        )
        return call(pb.Empty(), timeout=DEADLINE)

    async def options(self) -> pb.DevicePluginOptions:
        call = self._channel.unary_unary(
            "/v1beta1.DevicePlugin/GetDevicePluginOptions",
            request_serializer=pb.Empty.SerializeToString,
            response_deserializer=pb.DevicePluginOptions.FromString,
        )
        found: pb.DevicePluginOptions = await call(pb.Empty(), timeout=DEADLINE)
        return found

    async def allocate(self, *containers: list[str]) -> pb.AllocateResponse:
        call = self._channel.unary_unary(
            "/v1beta1.DevicePlugin/Allocate",
            request_serializer=pb.AllocateRequest.SerializeToString,
            response_deserializer=pb.AllocateResponse.FromString,
        )
        requests = [pb.ContainerAllocateRequest(devicesIDs=ids) for ids in containers]
        request = pb.AllocateRequest(container_requests=requests)
        found: pb.AllocateResponse = await call(request, timeout=DEADLINE)
        return found


class Trouble:
    def __init__(self) -> None:
        self.why = ""

    def __call__(self) -> str:
        return self.why


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[Kubelet]:
    kubelet = Kubelet(tmp_path)
    await kubelet.start()
    yield kubelet
    await kubelet.stop()


@pytest.fixture
async def trouble(kubelet: Kubelet) -> AsyncIterator[Trouble]:
    """A plugin runs; this is what ails its device."""
    trouble = Trouble()
    task = asyncio.create_task(Plugin(OFFER, str(kubelet.folder), trouble).run())
    yield trouble
    task.cancel()
    await asyncio.wait((task,))


def health(response: pb.ListAndWatchResponse) -> dict[str, str]:
    return {device.ID: device.health for device in response.devices}


async def test_it_lists_and_allocates(kubelet: Kubelet, trouble: Trouble) -> None:
    async with kubelet.plugin() as plugin:
        assert await plugin.options() == pb.DevicePluginOptions()
        watch = plugin.watch()
        listed = health(await watch.read())
        assert listed == dict.fromkeys(("thing0", "thing1", "thing2"), "Healthy")
        answer = await plugin.allocate(["thing0"], ["thing2"])
        assert len(answer.container_responses) == 2
        for each in answer.container_responses:
            (device,) = each.devices
            assert device.container_path == device.host_path == "/dev/thing"
            assert device.permissions == "rw"
            assert not each.mounts
            assert not each.envs
        watch.cancel()


async def test_a_device_that_fails_and_recovers(kubelet: Kubelet, trouble: Trouble) -> None:
    async with kubelet.plugin() as plugin:
        watch = plugin.watch()
        await watch.read()
        trouble.why = "it gave up"
        assert set(health(await watch.read()).values()) == {"Unhealthy"}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plugin.allocate(["thing0"])
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == "it gave up"
        trouble.why = ""
        assert set(health(await watch.read()).values()) == {"Healthy"}
        watch.cancel()


async def test_a_kubelet_that_starts_anew(kubelet: Kubelet, trouble: Trouble) -> None:
    async with kubelet.plugin() as plugin:
        assert await plugin.options() == pb.DevicePluginOptions()
    await kubelet.stop()
    await kubelet.start()
    async with kubelet.plugin() as plugin:
        watch = plugin.watch()
        assert len(health(await watch.read())) == 3
        watch.cancel()


async def test_a_kubelet_that_is_not_there_yet(tmp_path: Path) -> None:
    kubelet = Kubelet(tmp_path)
    task = asyncio.create_task(Plugin(OFFER, str(tmp_path), Trouble()).run())
    await asyncio.sleep(0.1)
    assert not list(tmp_path.iterdir())
    await kubelet.start()
    async with kubelet.plugin() as plugin:
        assert await plugin.options() == pb.DevicePluginOptions()
    task.cancel()
    await asyncio.wait((task,))
    await kubelet.stop()


def test_the_generated_code_is_of_its_source(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    assert generate.main(tmp_path) == 0
    for end in ("_pb2.py", "_pb2.pyi"):
        name = f"{generate.NAME}{end}"
        assert filecmp.cmp(tmp_path / name, generate.HERE / name, shallow=False), (
            "python -m qvirt_handler.device_plugin.generate"
        )
