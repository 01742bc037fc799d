"""virt-launcher's wiring: sockets, signals, children; then one `Launcher` until its guest's end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from typing import Final

from qvirt_crds import names
from qvirt_launcher import alone, process, settle
from qvirt_launcher.console import Console, Log, Sink
from qvirt_launcher.console_pipe import ConsolePipe
from qvirt_launcher.control import Control
from qvirt_launcher.forked import Forked
from qvirt_launcher.inputs import Signalled
from qvirt_launcher.launcher import Launcher
from qvirt_launcher.options import Options
from qvirt_launcher.phases import exit_code
from qvirt_launcher.place import Place
from qvirt_launcher.preparer import Preparer
from qvirt_qmp.server import Server
from qvirt_qmp.session import Call

#: The guest has ended by itself, and is to run again.
_EXIT_AGAIN: Final = 8
#: What the greeting says: clients written for QEMU look for a version.
_GREETING: Final = {
    "qemu": {"major": 0, "minor": 1, "micro": 0},
    "package": "virt-launcher (commands vm-sync, vm-query, vm-stop, vm-recorder, agent-*; others go to QEMU)",
}


def serve(
    options: Options,
    place: Place,
    worker: Forked,
    signals: Sequence[int],
    early: Sequence[int],
) -> int:
    """Serve one guest; returns its exit code (`phases.EXIT_CODES`). Privileges are gone.

    :raise QvirtError, ListenFailed: this host can't.
    """
    # The sinks first: a sidecar waits for its pipe, and ends when that does.
    sinks = tuple(_sinks(options))
    with asyncio.Runner(loop_factory=_loop) as runner:
        return runner.run(_serve(options, place, worker, sinks, signals, early))


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(settle.Selector())


async def _serve(
    options: Options,
    place: Place,
    worker: Forked,
    sinks: Sequence[Sink],
    signals: Sequence[int],
    early: Sequence[int],
) -> int:
    loop = asyncio.get_running_loop()
    process.watch_children_by_pidfd()
    children = process.Children()
    order = alone.take(options.vm_from) if options.vm_from else None
    preparer = Preparer(worker, children)
    children.adopt_orphans()
    console = Console(os.path.join(place.run_dir, names.CONSOLE_SOCKET), *sinks)

    async def handle(call: Call) -> object:
        return await control.handle(call)

    server = Server(handle, greeting=_GREETING)
    launcher = Launcher(place, preparer, children, console, server.broadcast)
    control = Control(launcher)
    told = bool(early)

    def stop() -> None:
        nonlocal told
        told = True
        launcher.feed(Signalled())

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        await console.listen()
        await server.listen(os.path.join(place.run_dir, names.QMP_SOCKET), grade="read", mode=0o660)
        await server.listen(os.path.join(place.run_dir, names.CONTROL_SOCKET), grade="admin")
        for _ in early:
            loop.call_soon(launcher.feed, Signalled())
        if order is not None:
            loop.call_soon(launcher.sync, order.taken, order.message, list)
        state = await launcher.run()
    finally:
        preparer.abandon()
        await preparer.aclose()
        await console.aclose()
        await server.aclose()
    code = exit_code(state.end)
    return _EXIT_AGAIN if not code and not told and options.restart_policy == "Always" else code


def _sinks(options: Options) -> Iterator[Sink]:
    if options.console_log:
        yield Log(options.console_log)
    if options.console_pipe:
        yield ConsolePipe(options.console_pipe)
