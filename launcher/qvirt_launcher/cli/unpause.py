"""``qvirt unpause``."""

from __future__ import annotations

import argparse
import asyncio

from qvirt_launcher.cli import exits
from qvirt_launcher.cli.reach import execute
from qvirt_launcher.cli.where import Remote, locate


def run(arguments: argparse.Namespace) -> int:
    """Let it go on."""
    vm = locate(arguments)
    if isinstance(vm, Remote):
        vm.put("virtualmachineinstances", "unpause")
    else:
        asyncio.run(execute(vm, "cont"))
    print(f"qvirt: {arguments.vm}: goes on")
    return exits.OK
