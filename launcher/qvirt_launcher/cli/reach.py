"""How subcommands find a VM and talk to its launcher."""

from __future__ import annotations

import argparse

import msgspec

from qvirt_crds.names import CONTROL_SOCKET
from qvirt_crds.report import VmReport
from qvirt_launcher.rundir import Vm, find, runtime_root
from qvirt_qmp.client import Monitor, connect_unix

#: For one answer of a launcher, in seconds. It is never busy for long.
ANSWER_SECONDS = 5.0


def find_vm(arguments: argparse.Namespace) -> Vm:
    """The VM named on the command line, ``NAME`` with ``-n``, or ``NAMESPACE/NAME``.

    :raise NotRunning: there is none.
    """
    namespace, slash, name = arguments.vm.rpartition("/")
    return find(runtime_root(), namespace if slash else arguments.namespace, name)


async def control(vm: Vm) -> Monitor:
    """A session with its launcher.

    :raise ConnectFailed: the launcher doesn't answer.
    """
    name = f"{vm.record.namespace}/{vm.record.name}"
    return await connect_unix(str(vm.path / CONTROL_SOCKET), name=name, deadline=ANSWER_SECONDS)


async def execute(vm: Vm, command: str) -> None:
    """One command to its launcher, or through it to QEMU.

    :raise QmpError: refused, or no answer.
    """
    monitor = await control(vm)
    try:
        await monitor.execute(command, deadline=ANSWER_SECONDS)
    finally:
        await monitor.aclose()


async def query(monitor: Monitor) -> VmReport:
    """The launcher's report.

    :raise QmpError: it doesn't answer.
    """
    answer = await monitor.execute("vm-query", deadline=ANSWER_SECONDS)
    return msgspec.convert(answer, VmReport)
