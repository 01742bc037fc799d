"""virt-launcher's wiring: options, privileges, worker, sockets, signals; then one `Launcher` until its guest's end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from qvirt_crds import names
from qvirt_crds.errors import QvirtError
from qvirt_launcher import alone, privileges, process, settle
from qvirt_launcher.console import Console, Log, Sink
from qvirt_launcher.console_pipe import ConsolePipe
from qvirt_launcher.control import Control
from qvirt_launcher.errors import HostError
from qvirt_launcher.holders import end_holders, show_life
from qvirt_launcher.inputs import Signalled
from qvirt_launcher.launcher import Launcher, Place
from qvirt_launcher.options import Options, RestartPolicy, Usage, parse
from qvirt_launcher.phases import exit_code
from qvirt_launcher.preparer import Preparer
from qvirt_launcher.removal import remove_tree
from qvirt_qmp.errors import ListenFailed
from qvirt_qmp.server import Server
from qvirt_qmp.session import Call

_log = logging.getLogger(__name__)

#: What the greeting says: clients written for QEMU look for a version.
_GREETING: Final = {
    "qemu": {"major": 0, "minor": 1, "micro": 0},
    "package": "virt-launcher (commands vm-sync, vm-query, vm-stop, vm-recorder, agent-*; others go to QEMU)",
}
_EXIT_HOST: Final = 4
_EXIT_BUG: Final = 70


def run(arguments: Sequence[str], signals: Sequence[int], early: Sequence[int]) -> int:
    """Serve one guest; returns the exit code (`phases.EXIT_CODES`, 2 for a wrong option, 4 when this host can't).

    :param signals: those that mean "stop".
    :param early: such signals that came already.
    """
    try:
        options = parse(arguments)
    except Usage as usage:
        stream = sys.stderr if usage.code else sys.stdout
        stream.write(f"{usage}\n")
        return usage.code
    logging.basicConfig(
        format=f"virt-launcher {options.namespace}/{options.name}: %(message)s",
        level=logging.DEBUG if options.verbose else logging.INFO,
        stream=sys.stderr,
    )
    if options.pod:
        show_life()
    code = _EXIT_BUG
    try:
        with asyncio.Runner(loop_factory=_loop) as runner:
            # The sinks first: a sidecar waits for its pipe, and ends when that does.
            code = runner.run(_serve(options, tuple(_sinks(options)), signals, early))
    except (QvirtError, ListenFailed) as error:
        _log.error("%s", error)
        code = _EXIT_HOST
    except Exception:  # noqa: BLE001  the last door: a bug gets a traceback in the log and an exit code
        _log.exception("this is a bug")
    finally:
        if options.pod and not _runs_again(options.restart_policy, code):
            end_holders()
    return code


def _runs_again(policy: RestartPolicy, code: int) -> bool:
    """Whether the kubelet (or podman) starts this container again; one that was told to end it does not."""
    match policy:
        case "Never":
            return False
        case "OnFailure":
            return code != 0
        case "Always":
            return True


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(settle.Selector())


async def _serve(
    options: Options, sinks: Sequence[Sink], signals: Sequence[int], early: Sequence[int]
) -> int:
    loop = asyncio.get_running_loop()
    process.watch_children_by_pidfd()
    children = process.Children()
    order = alone.take(options.vm_from) if options.vm_from else None
    place = _place(options)
    preparer = await _become_ordinary(options, place, children)
    children.adopt_orphans()
    console = Console(os.path.join(place.run_dir, names.CONSOLE_SOCKET), *sinks)

    async def handle(call: Call) -> object:
        return await control.handle(call)

    server = Server(handle, greeting=_GREETING)
    launcher = Launcher(place, preparer, children, console, server.broadcast)
    control = Control(launcher)
    for number in signals:
        loop.add_signal_handler(number, launcher.feed, Signalled())
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
    return exit_code(state.end)


def _sinks(options: Options) -> Iterator[Sink]:
    if options.console_log:
        yield Log(options.console_log)
    if options.console_pipe:
        yield ConsolePipe(options.console_pipe)


def _place(options: Options) -> Place:
    """Where to live; both directories exist afterwards."""
    run_dir = os.path.abspath(options.run_dir)
    disk_dir = os.path.abspath(options.disk_dir or os.path.join(run_dir, "disks"))
    _make(run_dir)
    if options.vm_from:
        # Of a predecessor that was killed: a pod's containers start again, and its volumes stay.
        remove_tree(disk_dir)
    return Place(
        run_dir=run_dir,
        disk_dir=disk_dir,
        owns_disk_dir=_make(disk_dir),
        name=options.name,
        namespace=options.namespace,
        pod=options.pod,
    )


async def _become_ordinary(options: Options, place: Place, children: process.Children) -> Preparer:
    """Start the worker, then give up privileges. Everything that is ever imported is imported by now."""
    is_root = os.geteuid() == 0
    user = privileges.resolve(options.user or str(names.RUNTIME_UID)) if is_root else None
    for directory in (place.run_dir, place.disk_dir):
        _give(directory, user)
    preparer = await Preparer.spawn(user, options.cache_dir, children)
    privileges.drop(user)
    return preparer


def _make(directory: str) -> bool:
    """Whether the directory had to be made.

    :raise HostError: it can't be.
    """
    try:
        os.makedirs(directory, mode=0o700)
    except FileExistsError:
        return False
    except OSError as error:
        raise HostError(f"{directory} can't be made ({error.strerror}): choose another") from error
    return True


def _give(directory: str, user: privileges.User | None) -> None:
    """Root's directories become the user's; others are left as they are."""
    if user is not None and os.stat(directory).st_uid == 0:
        os.chown(directory, user.uid, user.gid)
