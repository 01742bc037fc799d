"""``qvirt console``."""

from __future__ import annotations

import argparse
import asyncio
import sys

from qvirt_crds.names import CONSOLE_SOCKET
from qvirt_launcher.cli import exits
from qvirt_launcher.cli.cluster.errors import ClusterRefused
from qvirt_launcher.cli.pipes import Pipe
from qvirt_launcher.cli.terminal import Attachment, local_console, raw_mode
from qvirt_launcher.cli.where import Remote, locate
from qvirt_launcher.rundir import Vm

#: A guest of a cluster that does not run yet is waited for, as virtctl does.
_START_SECONDS = 300.0


def run(arguments: argparse.Namespace) -> int:
    """Attach until Ctrl-], the guest's end, the text of ``--until`` or the timeout."""
    vm = locate(arguments)
    name = vm.name if isinstance(vm, Remote) else vm.record.name
    with raw_mode() as raw:
        if raw:
            print(f"qvirt: on the console of {name}, Ctrl-] leaves\r", file=sys.stderr)
        attachment = Attachment(lambda: _connect(vm), arguments.until)
        how = asyncio.run(_attach(attachment, arguments.timeout))
    sys.stdout.write("\n" if raw or arguments.until else "")
    if how == "late":
        what = f"{arguments.until!r} did not appear" if arguments.until else "time is up"
        print(f"qvirt: error: {name}: {what} ({arguments.timeout:g} s)", file=sys.stderr)
        return exits.FAILED
    if how == "closed" and arguments.until:
        print(
            f"qvirt: error: {name}: the console ended before {arguments.until!r} appeared",
            file=sys.stderr,
        )
        return exits.FAILED
    return exits.OK


async def _connect(vm: Vm | Remote) -> Pipe:
    if not isinstance(vm, Remote):
        return await local_console(str(vm.path / CONSOLE_SOCKET))
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                return await vm.stream("console")
            except ClusterRefused as error:
                if error.status != 400:
                    raise
            await asyncio.sleep(1)


async def _attach(attachment: Attachment, limit: float | None) -> str:
    try:
        async with asyncio.timeout(limit):
            return await attachment.run()
    except TimeoutError:
        return "late"
