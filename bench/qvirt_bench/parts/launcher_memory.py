"""PSS of everything in a pod but QEMU, at rest, with a guest at its login prompt."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from qvirt_bench import image_root, pod, smaps
from qvirt_bench.conditions import accelerator
from qvirt_bench.figures import Figure, Measured
from qvirt_crds import pod_layout
from qvirt_launcher.settle import QUIET

#: virt-launcher-monitor, virt-launcher, virtlogd and virtqemud (peers.md 3.1: its own constants, v1.9.0).
_KUBEVIRT_MIB: Final = 190.0
_RUNS: Final = 3
#: An event that costs less than a clock tick goes unseen (`pod.Pod.rest`), and puts rest off once.
_REST_SECONDS: Final = 2 * QUIET + 5


async def measure() -> Measured:
    """One pod alone, `_RUNS` times. How it grows with pods that share the pages of programs: see `density`."""
    root = image_root.unpack(image_root.archive_of("launcher"))
    alone = [await _pod(root) for _ in range(_RUNS)]
    parts = [
        Figure(
            name="launcher's own memory (all of the pod but QEMU), alone on its node",
            unit="MiB",
            ours=tuple(_mib(rest + holder) for rest, _, holder in alone),
            baseline=(_KUBEVIRT_MIB,),
            baseline_name="KubeVirt's management processes (its constants)",
            kind="value",
            aim=14.0,
        ),
        Figure(
            name="of it, virt-launcher",
            unit="MiB",
            ours=tuple(_mib(rest) for rest, _, _ in alone),
            baseline=tuple(_mib(after) for _, after, _ in alone),
            baseline_name="the same right after a query (its pages are in use again)",
            kind="value",
        ),
        Figure(
            name="of it, memory that nobody else can use (anonymous)",
            unit="MiB",
            ours=tuple(rest.anon / smaps.MIB for rest, _, _ in alone),
            baseline=tuple(rest.pss / smaps.MIB for rest, _, _ in alone),
            baseline_name="virt-launcher in all",
            kind="value",
        ),
    ]
    return Measured(figures=tuple(parts), notes=_NOTES)


_NOTES: Final = (
    "The launcher's image in namespaces of its own, user 107, PID 1; the demo guest at its login prompt, "
    f"then {_REST_SECONDS:.0f} s in which nothing happens. One containerDisk's sidecar included, Kubernetes' own pause container not.",
    "PSS: a page that n processes share counts 1/n for each; the first VM of a node pays for all of the interpreter's pages.",
)

_Memory = tuple[smaps.Memory, smaps.Memory, smaps.Memory]


async def _pod(root: Path) -> _Memory:
    """The launcher at rest, the launcher after a query, the sidecar."""
    async with pod.started(root) as one, _holder(root) as holder:
        await one.sync(pod.guest(accel=accelerator()))
        await one.running()
        await one.prompt()
        await one.rest(_REST_SECONDS)
        rest = smaps.of_processes([one.launcher])
        held = smaps.of_processes(holder.processes())
        await one.running()
        return rest, smaps.of_processes([one.launcher]), held


@contextlib.asynccontextmanager
async def _holder(root: Path) -> AsyncIterator[pod.Pod]:
    with tempfile.TemporaryDirectory(prefix="qvirt-bench-") as name:
        directory = Path(name)
        pod.furnish(root, directory)
        command = pod_layout.holder_command("root")
        process = await pod.spawn(root, directory, pod.DEMO_DISK.parent, command)
        try:
            yield pod.Pod(process, directory)
        finally:
            await pod.end(process)


def _mib(memory: smaps.Memory) -> float:
    return round(memory.pss / smaps.MIB, 2)
