"""``qvirt pause``: the guest's clock stops, and nobody else's."""

from __future__ import annotations

import argparse
import asyncio

from qvirt_launcher.cli import exits
from qvirt_launcher.cli.reach import execute
from qvirt_launcher.cli.where import Remote, locate


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    vm = locate(arguments)
    if isinstance(vm, Remote):
        vm.put("virtualmachineinstances", "pause")
    else:
        asyncio.run(execute(vm, "stop"))
    print(f"qvirt: {arguments.vm}: is paused")
    return exits.OK
