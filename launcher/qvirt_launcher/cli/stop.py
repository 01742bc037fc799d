"""``qvirt stop``: tell the launcher, and wait until nothing of the VM is left."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time

import msgspec

from qvirt_crds.report import StopArguments, VmReport
from qvirt_launcher.cli import exits
from qvirt_launcher.cli.reach import ANSWER_SECONDS, control
from qvirt_launcher.cli.where import Remote, locate
from qvirt_launcher.errors import HostError
from qvirt_launcher.phases import EXIT_CODES
from qvirt_launcher.rundir import Vm, runtime_root, start_time, state_of
from qvirt_launcher.supervisor import decode_report
from qvirt_qmp.errors import QmpError

#: Beyond the grace period: the launcher's last rungs and the supervisor's cleaning up.
_MARGIN_SECONDS = 60.0
_PAUSE = 0.1
_TELL_EVERY = 5.0


def run(arguments: argparse.Namespace) -> int:
    """Stop one VM; the exit code is that of ``qvirt run``."""
    vm = locate(arguments)
    grace = 0 if arguments.force else arguments.grace_period
    if isinstance(vm, Remote):
        return _stop_remote(vm, grace)
    report = asyncio.run(_stop(vm, grace, arguments.force))
    name = f"{vm.record.namespace}/{vm.record.name}"
    if report.end_reason is None:
        print(f"qvirt: {name}: is gone")
        return exits.OK
    code = EXIT_CODES[report.end_reason]
    print(f"qvirt: {name}: {report.message or 'the guest shut down'}")
    return code


def _stop_remote(vm: Remote, grace: int | None) -> int:
    """Of a cluster: until its instance is gone, as far as we may see it."""
    before = vm.instance()
    vm.put("virtualmachines", "stop", None if grace is None else {"gracePeriod": grace})
    print(f"qvirt: {vm.title}: was told to stop", flush=True)
    if before is None:
        return exits.OK
    uid = _field(before, "metadata", "uid")
    given = _field(before, "spec", "terminationGracePeriodSeconds")
    limit = (given if grace is None and isinstance(given, int) else grace or 0) + _MARGIN_SECONDS
    end = time.monotonic() + limit
    while (now := vm.instance()) is not None and _field(now, "metadata", "uid") == uid:
        if _field(now, "status", "phase") in ("Succeeded", "Failed"):
            break
        if time.monotonic() > end:
            raise HostError(f"{vm.title}: did not end within {limit:g} s; try --force")
        time.sleep(1)
    print(f"qvirt: {vm.title}: has ended")
    return exits.OK


def _field(found: dict[str, object], part: str, name: str) -> object:
    inner = found.get(part)
    return inner.get(name) if isinstance(inner, dict) else None


async def _stop(vm: Vm, grace: int | None, force: bool) -> VmReport:
    limit = (vm.record.grace if grace is None else grace) + _MARGIN_SECONDS
    last = VmReport()
    try:
        async with asyncio.timeout(limit):
            last = await _ask(vm, grace, limit - _MARGIN_SECONDS)
            await _gone(vm)
    except TimeoutError:
        raise HostError(
            f"{vm.record.name}: did not end within {limit:g} s; try --force, or kill -9 {vm.record.launcher}"
        ) from None
    except QmpError as error:
        if not force:
            raise
        print(f"qvirt: {error}; killing its launcher", file=sys.stderr)
        _kill(vm)
        async with asyncio.timeout(_MARGIN_SECONDS):
            await _gone(vm)
    return last


async def _ask(vm: Vm, grace: int | None, patience: float) -> VmReport:
    """Say it, and follow the reports until the launcher hangs up."""
    monitor = await control(vm)
    try:
        events = monitor.events()
        last = VmReport()
        arguments = StopArguments(grace_period_seconds=grace)
        await monitor.execute("vm-stop", msgspec.to_builtins(arguments), deadline=ANSWER_SECONDS)
        telling = asyncio.create_task(_tell(vm, patience), name="progress")
        try:
            async for event in events:
                last = decode_report(event) or last
        finally:
            telling.cancel()
            await asyncio.wait({telling})
        return last
    finally:
        await monitor.aclose()


async def _tell(vm: Vm, patience: float) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_TELL_EVERY)
        waited = time.monotonic() - began
        print(
            f"qvirt: {vm.record.name}: waiting for the guest, {waited:.0f} of {patience:.0f} s",
            file=sys.stderr,
        )


async def _gone(vm: Vm) -> None:
    """Until its supervisor has removed everything."""
    root = runtime_root()
    # Another process's lock has no event to wait for.
    while state_of(root, vm.record.namespace, vm.record.name) not in {None, "dead"}:  # noqa: ASYNC110
        await asyncio.sleep(_PAUSE)


def _kill(vm: Vm) -> None:
    """A launcher that doesn't answer takes its QEMU along."""
    if start_time(vm.record.launcher) == vm.record.launcher_start != 0:
        os.kill(vm.record.launcher, signal.SIGKILL)
