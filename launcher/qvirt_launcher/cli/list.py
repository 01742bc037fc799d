"""``qvirt list``."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

import msgspec

from qvirt_crds.report import VmReport
from qvirt_launcher.cli import exits
from qvirt_launcher.cli.reach import control, query
from qvirt_launcher.rundir import Vm, list_vms, runtime_root
from qvirt_qmp.errors import QmpError

_HEADINGS = ("NAME", "NAMESPACE", "PHASE", "PID", "ACCEL", "ADDRESS", "UPTIME")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One VM. ``pid`` is QEMU's; what isn't known is empty, 0 or None."""

    name: str
    namespace: str
    phase: str
    pid: int
    accel: str
    address: str
    uptime_seconds: int | None
    network: str
    user: str
    run_dir: str


def run(arguments: argparse.Namespace) -> int:
    """Print a line a VM."""
    vms = list_vms(runtime_root())
    rows = asyncio.run(_rows(vms))
    if arguments.output == "json":
        print(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    elif arguments.output == "name":
        for row in rows:
            print(row.name)
    else:
        print(table([_HEADINGS, *map(_cells, rows)]))
    return exits.OK


async def _rows(vms: Sequence[Vm]) -> list[Row]:
    return list(await asyncio.gather(*map(_row, vms)))


async def _row(vm: Vm) -> Row:
    report = VmReport()
    phase = {"alive": "Unknown", "orphan": "Stopping", "dead": "Dead"}[vm.state]
    if vm.state != "dead":
        try:
            report = await _ask(vm)
            phase = report.phase
        except QmpError:
            # A launcher that is just being started, or is hung: the row says that nothing is known.
            pass
    since = report.running_since
    return Row(
        name=vm.record.name,
        namespace=vm.record.namespace,
        phase=phase,
        pid=report.qemu_pid or 0,
        accel=report.accel or "",
        address=_address(report),
        uptime_seconds=None if since is None else max(0, int(time.time() - since)),
        network=vm.record.network,
        user=vm.record.user,
        run_dir=str(vm.path),
    )


async def _ask(vm: Vm) -> VmReport:
    monitor = await control(vm)
    try:
        return await query(monitor)
    finally:
        await monitor.aclose()


def _address(report: VmReport) -> str:
    """Addresses that the guest has taken; else the ports of this machine that reach it."""
    taken = [i.address or i.address6 for i in report.interfaces if i.leased]
    ports = [
        f"{p.host_address}:{p.host_port}->{p.guest_port}"
        for i in report.interfaces
        for p in i.publish
    ]
    return ",".join(address.partition("/")[0] for address in taken) or ",".join(ports)


def _cells(row: Row) -> tuple[str, ...]:
    uptime = "" if row.uptime_seconds is None else age(row.uptime_seconds)
    pid = str(row.pid or "")
    return (row.name, row.namespace, row.phase, pid, row.accel, row.address, uptime)


def age(seconds: int) -> str:
    """As kubectl writes it: the two biggest units."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    parts: list[str] = []
    for letter, size in units:
        count, seconds = divmod(seconds, size)
        if count or (letter == "s" and not parts):
            parts.append(f"{count}{letter}")
    return "".join(parts[:2])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; empty cells are dashes."""
    filled = [[cell or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*filled, strict=True)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in filled
    )
