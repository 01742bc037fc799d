"""What qvirt asks of a node before the first guest, against KubeVirt's; and what the running installation really takes of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from qvirt_bench import live, smaps
from qvirt_bench.errors import BenchError
from qvirt_bench.figures import Figure, Kind, Measured
from qvirt_bench.soak.watch import processes_of_pods
from qvirt_crds.quantity import parse_bytes
from qvirt_kube.client import Object

#: virt-operator 2 x 450, virt-api 500, virt-controller 2 x 275, virt-handler 325 MiB (peers.md 3.4).
_KUBEVIRT_MIB: Final = 2275.0
_NAMESPACE: Final = "qvirt-bench-control-plane"
_PAUSE: Final = "pause"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One pod of the control plane; MiB."""

    name: str
    requested: float
    #: Of its processes.
    pss: float
    anonymous: float
    #: Of its containers, as the kubelet reckons it.
    working_set: float

    @property
    def used(self) -> float:
        """The larger of two ways to count: control groups charge a shared page to whoever touched it first."""
        return max(self.pss, self.working_set)


async def measure() -> Measured:
    """The installation of a cluster of one node, as it is."""
    async with live.cluster(_NAMESPACE) as here:
        nodes = len((await here.kube.get("/api/v1/nodes"))["items"])
        if nodes != 1:
            raise BenchError(f"this is about one node, and the cluster has {nodes}")
        parts = tuple(_parts(await here.parts()))
    if not parts:
        raise BenchError("qvirt is not installed on this cluster: make deploy")
    asked, used = sum(p.requested for p in parts), sum(p.used for p in parts)
    fullest = max(parts, key=lambda part: part.used / part.requested)
    figures = (
        _figure("memory requested by the control plane, one node", asked, "value", 200.0),
        _figure(
            *("really used by it (larger of PSS and working set)", used, "ratio", 1.0),
            baseline=(asked, "requested"),
        ),
        _figure(
            *(f"of it, the pod nearest to its request: {fullest.name}", fullest.used),
            *("ratio", 1.0),
            baseline=(fullest.requested, "requested by this pod"),
        ),
    )
    header = ("pod", "requested, MiB", "PSS", "of it anonymous", "working set")
    rows = [
        (
            part.name,
            *map("{:.1f}".format, (part.requested, part.pss, part.anonymous, part.working_set)),
        )
        for part in sorted(parts, key=lambda part: part.name)
    ]
    notes = (
        "The installation on a cluster of one node (`make cluster`, `make deploy`), as it was found: with the guests that run on it, if any do.",
        "Working set as the kubelet reckons it: the container's memory, the kernel's part included, without file pages that nobody has used of late.",
        "A pod is given the larger of what its init containers and its containers request.",
    )
    return Measured(figures=figures, notes=notes, table=(header, *rows))


def _figure(
    name: str,
    ours: float,
    kind: Kind,
    aim: float,
    baseline: tuple[float, str] = (_KUBEVIRT_MIB, "KubeVirt on a single node (its manifests)"),
) -> Figure:
    return Figure(
        name=name,
        unit="MiB",
        ours=(round(ours, 1),),
        baseline=(baseline[0],),
        baseline_name=baseline[1],
        kind=kind,
        aim=aim,
    )


def _parts(pods: Iterable[Object]) -> Iterable[Part]:
    processes = processes_of_pods()
    for pod in pods:
        found = processes.get(pod["metadata"]["uid"], {})
        inside = [pid for pid, name in found.items() if name != _PAUSE]
        if "deletionTimestamp" in pod["metadata"] or not inside:
            continue
        memory = smaps.of_processes(inside)
        yield Part(
            name=pod["metadata"]["name"],
            requested=requested(pod["spec"]) / smaps.MIB,
            pss=memory.pss / smaps.MIB,
            anonymous=memory.anon / smaps.MIB,
            # Each of our pods has one container that runs.
            working_set=smaps.working_set(inside[0]) / smaps.MIB,
        )


def requested(spec: Object) -> float:
    """Bytes that the scheduler counts for a pod: its containers' sum, or the largest of the init containers."""
    first = [_memory(container) for container in spec.get("initContainers") or ()]
    return max([sum(_memory(container) for container in spec["containers"]), *first])


def _memory(container: Object) -> int:
    asked = container.get("resources", {}).get("requests", {}).get("memory")
    return parse_bytes(asked) if asked else 0
