"""``qvirt restart``: on a cluster a new instance; on this machine the guest boots again where it is."""

from __future__ import annotations

import argparse
import asyncio

from qvirt_launcher.cli import exits
from qvirt_launcher.cli.reach import execute
from qvirt_launcher.cli.where import Remote, locate


def run(arguments: argparse.Namespace) -> int:
    """Ask for it."""
    vm = locate(arguments)
    if isinstance(vm, Remote):
        options = {"gracePeriodSeconds": 0} if arguments.force else None
        vm.put("virtualmachines", "restart", options)
        print(f"qvirt: {vm.title}: was told to restart")
        return exits.OK
    asyncio.run(execute(vm, "system_reset" if arguments.force else "vm-soft-reboot"))
    print(f"qvirt: {vm.record.namespace}/{vm.record.name}: was told to restart")
    return exits.OK
