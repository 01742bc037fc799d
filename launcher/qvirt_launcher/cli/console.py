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
#: And one that was started just now and has no instance yet, so long.
_MADE_SECONDS = 15.0


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
    end = asyncio.get_running_loop().time() + _START_SECONDS
    made = end - _START_SECONDS + _MADE_SECONDS
    while True:
        try:
            return await vm.stream("console")
        except ClusterRefused as error:
            # 400: it doesn't run yet; 404: it may be about to be made.
            late = {400: end, 404: made}.get(error.status, 0.0)
            if asyncio.get_running_loop().time() > late:
                raise
        await asyncio.sleep(1)


async def _attach(attachment: Attachment, limit: float | None) -> str:
    try:
        async with asyncio.timeout(limit):
            return await attachment.run()
    except TimeoutError:
        return "late"
