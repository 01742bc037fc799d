"""``qvirt port-forward``: ports of this machine that are the guest's."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable

from qvirt_crds.errors import QvirtError
from qvirt_launcher.cli import exits
from qvirt_launcher.cli.datagrams import DatagramServer
from qvirt_launcher.cli.failure import show
from qvirt_launcher.cli.pipes import StreamPipe, relay
from qvirt_launcher.cli.ports import Protocol, open_port
from qvirt_launcher.cli.terminal import write_all
from qvirt_launcher.cli.values import Forward
from qvirt_launcher.cli.where import Remote, locate
from qvirt_launcher.errors import HostError, UsageError
from qvirt_launcher.rundir import Vm
from qvirt_qmp.errors import QmpError

_CHUNK = 65536


def run(arguments: argparse.Namespace) -> int:
    """Until Ctrl-C; with --stdio until the connection has ended."""
    vm = locate(arguments)
    forwards: list[Forward] = arguments.ports
    if arguments.stdio:
        if len(forwards) != 1 or forwards[0].protocol != "tcp":
            raise UsageError("port-forward: --stdio takes one TCP port")
        asyncio.run(_stdio(vm, forwards[0].guest))
        return exits.OK
    if not isinstance(vm, Remote) and any(f.protocol == "udp" for f in forwards):
        raise UsageError("port-forward: UDP ports are forwarded from clusters only")
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(vm, arguments.address, forwards))
    return exits.OK


async def _stdio(vm: Vm | Remote, port: int) -> None:
    pipe = await open_port(vm, port)
    reading = asyncio.create_task(_from_stdin(pipe.send, pipe.drain, pipe.end))
    try:
        while data := await pipe.read():
            await asyncio.to_thread(write_all, sys.stdout.fileno(), data)
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        pipe.abort()


async def _from_stdin(
    send: Callable[[bytes], None], drain: Callable[[], Awaitable[None]], end: Callable[[], None]
) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    except ValueError:  # a regular file: never blocks
        reader.feed_data(await asyncio.to_thread(sys.stdin.buffer.read))
        reader.feed_eof()
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            send(data)
            await drain()
        end()


async def _serve(vm: Vm | Remote, address: str, forwards: list[Forward]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for forward in forwards:
            try:
                number = await _listen(stack, vm, address, forward)
            except OSError as error:
                raise HostError(
                    f"port-forward: {address}:{forward.here}: {error.strerror}; choose another port"
                ) from error
            print(
                f"qvirt: {address}:{number} is {forward.protocol} port {forward.guest} of the guest; Ctrl-C ends",
                flush=True,
            )
        await asyncio.Event().wait()


async def _listen(
    stack: contextlib.AsyncExitStack, vm: Vm | Remote, address: str, forward: Forward
) -> int:
    """The port that it became."""
    if forward.protocol == "udp":
        assert isinstance(vm, Remote)
        server = DatagramServer(lambda: vm.stream(f"portforward/{forward.guest}/udp"))
        return await stack.enter_async_context(server.listening(address, forward.here))

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _connect(vm, forward.guest, forward.protocol, StreamPipe(reader, writer))

    listener = await asyncio.start_server(serve_one, address, forward.here)
    await stack.enter_async_context(listener)
    return int(listener.sockets[0].getsockname()[1])


async def _connect(vm: Vm | Remote, port: int, protocol: Protocol, near: StreamPipe) -> None:
    try:
        far = await open_port(vm, port, protocol)
    except (QvirtError, QmpError) as error:
        show(error)
        near.abort()
        return
    await relay(near, far)


def proxy_command(arguments: argparse.Namespace, port: int) -> list[str]:
    """The command that connects its standard input and output with a port of the same VM."""
    words = [sys.executable, "-m", "qvirt_launcher.cli.main", "port-forward", "--stdio"]
    for option in ("kubeconfig", "context", "namespace"):
        value = getattr(arguments, option)
        if value:
            words += [f"--{option}", os.path.abspath(value) if option == "kubeconfig" else value]
    return [*words, arguments.vm, str(port)]
