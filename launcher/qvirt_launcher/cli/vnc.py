"""``qvirt vnc``: the VM's VNC socket on a port of this machine, for viewers that know only TCP."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil

from qvirt_crds.names import VNC_SOCKET
from qvirt_launcher.cli import exits
from qvirt_launcher.cli.reach import find_vm
from qvirt_launcher.errors import HostError, NotRunning
from qvirt_qmp import sockets

_CHUNK = 65536
_VIEWERS = ("remote-viewer", "vncviewer", "gvncviewer")


def run(arguments: argparse.Namespace) -> int:
    """Serve until the viewer has ended, or, without one, until Ctrl-C."""
    vm = find_vm(arguments)
    path = vm.path / VNC_SOCKET
    if not path.is_socket():
        raise NotRunning(
            f"{vm.record.name}: has no screen; does autoattachGraphicsDevice deny it one, or is it starting?"
        )
    viewer = None if arguments.proxy_only else _viewer()
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(str(path), arguments.port, viewer))
    return exits.OK


def _viewer() -> str:
    for name in _VIEWERS:
        if shutil.which(name):
            return name
    raise HostError(
        f"vnc: none of {', '.join(_VIEWERS)} is installed; apt install virt-viewer, or use --proxy-only"
    )


async def _serve(path: str, port: int, viewer: str | None) -> None:
    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _relay(path, reader, writer)

    try:
        server = await asyncio.start_server(serve_one, "127.0.0.1", port)
    except OSError as error:
        raise HostError(f"vnc: port {port}: {error.strerror}; choose another --port") from error
    async with server:
        number = server.sockets[0].getsockname()[1]
        print(f"VNC at 127.0.0.1:{number}, Ctrl-C ends", flush=True)
        if viewer is None:
            await server.serve_forever()
            return
        target = (
            f"vnc://127.0.0.1:{number}" if viewer == "remote-viewer" else f"127.0.0.1::{number}"
        )
        process = await asyncio.create_subprocess_exec(viewer, target)
        await process.wait()


async def _relay(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        sock = await sockets.connect_path(path)
        near_reader, near_writer = await asyncio.open_unix_connection(sock=sock)
    except OSError:
        writer.close()
        return
    tasks = {
        asyncio.create_task(_pump(reader, near_writer), name="viewer to VNC"),
        asyncio.create_task(_pump(near_reader, writer), name="VNC to viewer"),
    }
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for each in (writer, near_writer):
            each.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
