"""``qvirt console``."""

from __future__ import annotations

import argparse
import asyncio
import sys

from qvirt_crds.names import CONSOLE_SOCKET
from qvirt_launcher.cli import exits
from qvirt_launcher.cli.reach import find_vm
from qvirt_launcher.cli.terminal import Attachment, raw_mode


def run(arguments: argparse.Namespace) -> int:
    """Attach until Ctrl-], the guest's end, the text of ``--until`` or the timeout."""
    vm = find_vm(arguments)
    path = str(vm.path / CONSOLE_SOCKET)
    with raw_mode() as raw:
        if raw:
            print(f"qvirt: on the console of {vm.record.name}, Ctrl-] leaves\r", file=sys.stderr)
        how = asyncio.run(_attach(Attachment(path, arguments.until), arguments.timeout))
    sys.stdout.write("\n" if raw or arguments.until else "")
    if how == "late":
        what = f"{arguments.until!r} did not appear" if arguments.until else "time is up"
        print(f"qvirt: error: {vm.record.name}: {what} ({arguments.timeout:g} s)", file=sys.stderr)
        return exits.FAILED
    if how == "closed" and arguments.until:
        print(
            f"qvirt: error: {vm.record.name}: the console ended before {arguments.until!r} appeared",
            file=sys.stderr,
        )
        return exits.FAILED
    return exits.OK


async def _attach(attachment: Attachment, limit: float | None) -> str:
    try:
        async with asyncio.timeout(limit):
            return await attachment.run()
    except TimeoutError:
        return "late"
