"""``qvirt run``: from the command line to a `Job`, its supervision, and the exit code."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from qvirt_crds.errors import QvirtError
from qvirt_launcher import uplink
from qvirt_launcher.account import launcher_account
from qvirt_launcher.claims import parse_claim
from qvirt_launcher.cli import exits
from qvirt_launcher.cli.detach import Background, run_detached
from qvirt_launcher.cli.failure import exit_code, show
from qvirt_launcher.cli.manifest import choose_instance, merge, read_manifests
from qvirt_launcher.cli.status import Status
from qvirt_launcher.errors import HostError, UsageError
from qvirt_launcher.images import parse_mapping
from qvirt_launcher.phases import EXIT_CODES
from qvirt_launcher.publish import parse_publish
from qvirt_launcher.rundir import RunDir, cache_root, claim, disk_root, runtime_root
from qvirt_launcher.sources import Finder, Given
from qvirt_launcher.supervisor import Ending, Job, supervise

_LOG: Final = "qvirt.log"
_NEEDED: Final = {"qemu-system-x86_64": "qemu-system-x86"}


def run(arguments: argparse.Namespace) -> int:
    """Run one VM to its end, or, with ``--detach``, until it runs."""
    if not arguments.detach:
        return _run(arguments, None)
    return run_detached(lambda background: _reported(arguments, background))


def _reported(arguments: argparse.Namespace, background: Background) -> int:
    """In the background process: errors are shown here, wherever standard error leads by then."""
    try:
        return _run(arguments, background)
    except QvirtError as error:
        show(error)
        return exit_code(error)
    except KeyboardInterrupt:
        return exits.FAILED


def _run(arguments: argparse.Namespace, background: Background | None) -> int:
    connection = _uplink(arguments)
    manifests = merge([read_manifests(file) for file in (arguments.file, *arguments.secret)])
    vmi = choose_instance(manifests, arguments.name, arguments.file)
    if connection.choice == "none":
        vmi = uplink.without_network(vmi)
    given = _given(arguments)
    account = launcher_account(arguments.user)
    _need_programs()
    namespace, name = vmi.metadata.namespace or "default", vmi.metadata.name

    def note(text: str) -> None:
        print(f"qvirt: {namespace}/{name}: {text}", file=sys.stderr, flush=True)

    with _interruptible():
        held = claim(runtime_root(), namespace, name, note, disk_root())
        try:
            held.make()
            found = Finder(vmi, manifests, given, account, held.path, note).find()
            job = Job(
                vmi=vmi,
                volumes=found.volumes,
                kernel=found.kernel,
                uplink=connection,
                account=account,
                accel=arguments.accel,
                state_dir=runtime_root() / ".network",
                cache_dir=given.cache,
                log=Path(arguments.log).absolute() if arguments.log else held.path / _LOG,
                wait=arguments.wait,
                timeout=arguments.timeout,
            )
            return _supervised(job, held, arguments.console, background)
        finally:
            held.remove()


def _supervised(job: Job, held: RunDir, console: bool, background: Background | None) -> int:
    status = Status(job, held.path, console, _leave(job, background))
    if job.uplink.because:
        status.note(f"network: {job.uplink.choice} ({job.uplink.because})")
    ending = asyncio.run(supervise(job, held, status))
    return _judge(job, ending, status)


def _leave(job: Job, background: Background | None) -> Callable[[], None] | None:
    return None if background is None else lambda: background.ready(job.log)


def _judge(job: Job, ending: Ending, status: Status) -> int:
    report = ending.report
    if ending.timed_out:
        status.error(
            f"was not {'running' if job.wait == 'running' else 'given its address'} within {job.timeout:g} s"
            " and was stopped; look at its console, or raise --timeout"
        )
        return exits.FAILED
    if report.end_reason is not None:
        code = EXIT_CODES[report.end_reason]
        if code == exits.OK:
            status.note(report.message or "the guest shut down")
        else:
            status.error(report.message or report.end_reason)
        return code
    if ending.interrupted:
        status.note("stopped before the guest ran")
        return exits.FAILED
    status.error(_unexpected(ending))
    return exits.QEMU


def _unexpected(ending: Ending) -> str:
    how = f"code {ending.code}" if ending.code >= 0 else signal.Signals(-ending.code).name
    return f"its launcher ended without a word ({how}); {ending.tail or 'nothing is in its log'}"


def _uplink(arguments: argparse.Namespace) -> uplink.Uplink:
    links = dict(_link(text) for text in arguments.interface)
    publish = tuple(map(parse_publish, arguments.publish))
    chosen = uplink.choose(arguments.network, publish, links, root=os.geteuid() == 0)
    if arguments.wait == "ip" and chosen.choice not in {"nat", "takeover"}:
        raise UsageError(
            f"--wait ip: with --network {chosen.choice} the guest's address isn't ours to give;"
            " use --wait running"
        )
    return chosen


def _link(text: str) -> tuple[str, str]:
    network, equals, interface = text.rpartition("=")
    if not interface or (equals and not network):
        raise UsageError(f"--interface {text}: write it as NAME or NETWORK=NAME")
    return network, interface


def _given(arguments: argparse.Namespace) -> Given:
    images = dict(parse_mapping(text) for text in arguments.image)
    claims = {c.name: c for c in map(parse_claim, arguments.pvc)}
    return Given(
        images=images,
        claims=claims,
        insecure=tuple(arguments.insecure_registry),
        cache=Path(arguments.cache_dir).absolute() if arguments.cache_dir else cache_root(),
    )


def _need_programs() -> None:
    for program, package in _NEEDED.items():
        if shutil.which(program) is None:
            raise HostError(f"{program}: is not installed; apt install {package}")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind as Ctrl-C does, so that what was made is removed. (The event loop has its own handlers.)"""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)
