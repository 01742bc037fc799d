"""``qvirt start``: on a cluster; on this machine `qvirt run` starts VMs."""

from __future__ import annotations

import argparse

from qvirt_launcher.cli import exits
from qvirt_launcher.cli.where import Remote, locate
from qvirt_launcher.errors import NotRunning, UsageError


def run(arguments: argparse.Namespace) -> int:
    """Ask for it."""
    try:
        vm = locate(arguments)
    except NotRunning as error:
        raise UsageError(
            f"{arguments.vm}: on this machine a VM is started from its manifest, with `qvirt run FILE`; "
            "for a VM of a cluster give --kubeconfig"
        ) from error
    if not isinstance(vm, Remote):
        raise UsageError(f"{vm.record.namespace}/{vm.record.name}: runs already, on this machine")
    vm.put("virtualmachines", "start", {"paused": True} if arguments.paused else None)
    print(f"qvirt: {vm.title}: was told to start")
    return exits.OK
