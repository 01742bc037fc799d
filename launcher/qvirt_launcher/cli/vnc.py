"""``qvirt vnc``: the VM's VNC socket on a port of this machine, for viewers that know only TCP."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil

from qvirt_crds.names import VNC_SOCKET
from qvirt_launcher.cli import browser, exits
from qvirt_launcher.cli.cluster.errors import ClusterError
from qvirt_launcher.cli.failure import show
from qvirt_launcher.cli.pipes import Pipe, StreamPipe, relay
from qvirt_launcher.cli.where import Remote, locate
from qvirt_launcher.errors import HostError, NotRunning
from qvirt_launcher.rundir import Vm
from qvirt_qmp import sockets

_VIEWERS = ("remote-viewer", "vncviewer", "gvncviewer")


def run(arguments: argparse.Namespace) -> int:
    """Serve until the viewer has ended, or, without one, until Ctrl-C."""
    vm = locate(arguments)
    if not isinstance(vm, Remote) and not (vm.path / VNC_SOCKET).is_socket():
        raise NotRunning(
            f"{vm.record.name}: has no screen; does autoattachGraphicsDevice deny it one, or is it starting?"
        )
    if arguments.browser:
        return _in_browser(vm, arguments)
    viewer = None if arguments.proxy_only else _viewer()
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(vm, arguments.port, viewer))
    return exits.OK


def _in_browser(vm: Vm | Remote, arguments: argparse.Namespace) -> int:
    if not isinstance(vm, Remote):
        raise HostError(
            f"{vm.record.name}: --browser is for VMs of a cluster, whose virt-api has the page; leave it out"
        )
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(browser.serve(vm, arguments.port, open_browser=not arguments.proxy_only))
    return exits.OK


def _viewer() -> str:
    for name in _VIEWERS:
        if shutil.which(name):
            return name
    raise HostError(
        f"vnc: none of {', '.join(_VIEWERS)} is installed; apt install virt-viewer, or use --proxy-only"
    )


async def _serve(vm: Vm | Remote, port: int, viewer: str | None) -> None:
    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _serve_viewer(vm, StreamPipe(reader, writer))

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


async def _serve_viewer(vm: Vm | Remote, viewer: Pipe) -> None:
    try:
        screen = await _screen(vm)
    except ClusterError as error:
        show(error)
        viewer.abort()
    except OSError:
        viewer.abort()
    else:
        await relay(viewer, screen)


async def _screen(vm: Vm | Remote) -> Pipe:
    if isinstance(vm, Remote):
        return await vm.stream("vnc")
    sock = await sockets.connect_path(str(vm.path / VNC_SOCKET))
    return StreamPipe(*await asyncio.open_unix_connection(sock=sock))
