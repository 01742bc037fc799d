"""virt-handler with the guests of a full node: what it does when nothing happens, and what each of them takes of its memory."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import msgspec

from qvirt_bench.errors import BenchError
from qvirt_bench.figures import Curve, Figure, Measured, Plot
from qvirt_bench.fleet import launchers
from qvirt_bench.fleet.api import Api, Object
from qvirt_bench.fleet.launchers import Launcher
from qvirt_bench.fleet.site import Component, make_nodes, site
from qvirt_cluster.control_plane import free_ports
from qvirt_crds.names import (
    CA_BUNDLE_KEY,
    CA_CONFIG_MAP,
    HANDLER_SECRET,
    INSTALL_NAMESPACE,
)
from qvirt_handler.writer import now

_STAGES: Final = (10, 50, 100, 200)
#: The first stage is what the last is held against.
_FEW, _MANY = _STAGES[0], _STAGES[-1]
#: virt-handler says every minute that it lives, and compares its watch with a list every half.
_IDLE_SECONDS: Final = float(os.environ.get("QVIRT_BENCH_IDLE", "65"))
_NODE: Final = "node"
_NAMESPACE: Final = "scale"
_VMIS: Final = f"/apis/kubevirt.io/v1/namespaces/{_NAMESPACE}/virtualmachineinstances"
_DEADLINE: Final = 120.0
_RESTING: Final = 0.05
_KIB: Final = 1024


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen with so many guests."""

    count: int
    pss: int
    #: Of a core, in percent, when nothing happens; None: not measured.
    idle: float | None


async def measure() -> Measured:
    """More and more guests; then quiet."""
    async with _running() as (api, handler):
        empty, stages = handler.pss, []
        async with contextlib.AsyncExitStack() as stack:
            for before, count in zip((0, *_STAGES), _STAGES, strict=False):
                await stack.enter_async_context(_guests(api, before, count))
                await _connected(api, count)
                await handler.rest(_RESTING, _DEADLINE)
                idle = await _idle(handler) if count in (_FEW, _MANY) else None
                stage = Stage(count=count, pss=handler.pss, idle=idle)
                print(f"   {stage}", flush=True)
                stages.append(stage)
    return _measured(empty, stages)


@contextlib.asynccontextmanager
async def _running() -> AsyncIterator[tuple[Api, Component]]:
    if os.geteuid() != 0:
        raise BenchError("virt-handler looks into other processes: run this as root")
    async with site("virt-handler") as (_, api, kubeconfig):
        await make_nodes(api, (_NODE,))
        await api.create("/api/v1/namespaces", {"metadata": {"name": _NAMESPACE}})
        with tempfile.TemporaryDirectory(prefix="qvirt-bench-") as folder:
            await _certificates(api, Path(folder))
            health, port = free_ports(2)
            where = ("--kubeconfig", kubeconfig, "--node-name", _NODE)
            flags = ("--state-dir", f"{folder}/state", "--port", str(port))
            probe = ("--health", f"http://127.0.0.1:{health}/healthz")
            handler = Component(
                "qvirt_handler", (*where, *flags, *probe), Path(folder) / "handler.log"
            )
            await handler.start()
            try:
                await asyncio.sleep(3)
                await handler.rest(_RESTING, _DEADLINE)
                yield api, handler
            finally:
                await handler.stop()


async def _certificates(api: Api, folder: Path) -> None:
    """What virt-api would leave for it; nobody connects."""
    key, certificate = folder / "key", folder / "certificate"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=virt-handler"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *curve, *files], check=True, capture_output=True, timeout=30)
    place = f"/api/v1/namespaces/{INSTALL_NAMESPACE}"
    pair = {"tls.key": key, "tls.crt": certificate}
    data = {name: base64.b64encode(file.read_bytes()).decode() for name, file in pair.items()}
    await api.create(f"{place}/secrets", {"metadata": {"name": HANDLER_SECRET}, "data": data})
    bundle = {"metadata": {"name": CA_CONFIG_MAP}, "data": {CA_BUNDLE_KEY: certificate.read_text()}}
    await api.create(f"{place}/configmaps", bundle)


@contextlib.asynccontextmanager
async def _guests(api: Api, first: int, last: int) -> AsyncIterator[None]:
    """Those with these numbers: launchers that run, and their instances, handed over."""
    pods = {number: str(uuid.uuid4()) for number in range(first, last)}
    made = [await _create(api, number, pod) for number, pod in pods.items()]
    with contextlib.ExitStack() as stack:
        found = [
            Launcher(
                name=vmi["metadata"]["name"],
                namespace=_NAMESPACE,
                uid=vmi["metadata"]["uid"],
                cgroup=stack.enter_context(_cgroup(pod)),
                address=f"10.99.{number >> 8}.{number & 255}/16",
            )
            for vmi, (number, pod) in zip(made, pods.items(), strict=True)
        ]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", launchers.__name__, "virt-launcher", "--pod"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(found))
            process.stdin.close()
            async with asyncio.timeout(_DEADLINE):
                if await process.stdout.readline() != launchers.READY:
                    raise BenchError("launchers without guests could not be started")
            yield
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@contextlib.contextmanager
def _cgroup(pod: str) -> Iterator[str]:
    root = Path("/sys/fs/cgroup/unified")
    parent = (root if root.is_dir() else root.parent) / "qvirt-bench"
    folder = parent / f"pod{pod}"
    folder.mkdir(parents=True)
    try:
        yield str(folder)
    finally:
        end = time.monotonic() + _DEADLINE
        while time.monotonic() < end:
            try:
                folder.rmdir()
                break
            except OSError:
                # Processes in it that were killed are still ending.
                time.sleep(0.05)
        with contextlib.suppress(OSError):
            parent.rmdir()


async def _create(api: Api, number: int, pod: str) -> Object:
    """An instance as virt-controller leaves it."""
    name = f"g{number}"
    interface = {
        "name": "default",
        "masquerade": {},
        "model": "virtio",
        "macAddress": "02:00:00:00:00:01",
    }
    devices = {"disks": [{"name": "root", "disk": {"bus": "virtio"}}], "interfaces": [interface]}
    vmi = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "labels": {"kubevirt.io/nodeName": _NODE}},
        "spec": {
            "domain": {"memory": {"guest": "64Mi"}, "devices": devices},
            "networks": [{"name": "default", "pod": {}}],
            "volumes": [{"name": "root", "containerDisk": {"image": "guest"}}],
        },
        "status": {
            "phase": "Scheduled",
            "nodeName": _NODE,
            "activePods": {pod: _NODE},
            "phaseTransitionTimestamps": [
                {"phase": phase, "phaseTransitionTimestamp": now()}
                for phase in ("Pending", "Scheduling", "Scheduled")
            ],
            "conditions": [{"type": "Ready", "status": "False", "reason": "GuestNotRunning"}],
        },
    }
    await api.create(_VMIS, vmi)
    return await api.get(f"{_VMIS}/{name}")


async def _connected(api: Api, count: int) -> None:
    """Until virt-handler has said of all that they run.

    :raise BenchError: it doesn't.
    """
    end = time.monotonic() + _DEADLINE
    running = 0
    while time.monotonic() < end:
        items = (await api.get(_VMIS))["items"]
        running = sum(item["status"].get("phase") == "Running" for item in items)
        if running == count:
            return
        await asyncio.sleep(1)
    raise BenchError(f"virt-handler found {running} of {count} launchers")


async def _idle(handler: Component) -> float:
    """Percent of a core."""
    used, since = handler.seconds, time.monotonic()
    await asyncio.sleep(_IDLE_SECONDS)
    return 100 * (handler.seconds - used) / (time.monotonic() - since)


def _measured(empty: int, stages: list[Stage]) -> Measured:
    few, many = stages[0], stages[-1]
    each = (many.pss - few.pss) / (many.count - few.count) / _KIB
    assert few.idle is not None
    assert many.idle is not None
    figures = (
        Figure(
            name=f"virt-handler's CPU with {many.count} idle guests",
            unit="% of a core",
            ours=(round(many.idle, 2),),
            baseline=(round(few.idle, 2),),
            baseline_name=f"itself with {few.count}",
            kind="value",
            aim=1.0,
        ),
        Figure(
            name=f"virt-handler's memory for each guest, from {few.count} to {many.count}",
            unit="KiB",
            ours=(round(each, 1),),
            baseline=(round((few.pss - empty) / few.count / _KIB, 1),),
            baseline_name=f"itself, from none to {few.count}",
            kind="value",
            aim=100.0,
        ),
    )
    points = ((0.0, empty), *((float(stage.count), stage.pss) for stage in stages))
    curve = Curve(
        name="virt-handler", points=tuple((x, round(y / _KIB / _KIB, 2)) for x, y in points)
    )
    return Measured(
        figures=figures,
        notes=_NOTES,
        plots=(Plot(title="virt-handler's PSS", x="guests", y="MiB", curves=(curve,)),),
    )


_NOTES: Final = (
    "A real API server; launchers without guests (`bench/qvirt_bench/fleet/launchers.py`): processes in a pod's control group, with "
    "network and mount namespaces of their own and the launcher's control socket, found and followed as real ones are. Their guests run "
    "already, as after a restart of virt-handler.",
    f"CPU: user and system time of {_IDLE_SECONDS:.0f} s in which nothing happens, with at least one heartbeat and one comparison of the watch with a list.",
)
