"""Creation -> Running on the cluster of KUBECONFIG, in turns with bare pods, and the API writes that it took."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from qvirt_bench.errors import BenchError
from qvirt_bench.figures import Figure, Measured
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import Conflict, KubeError, NotFound

#: Objects in all, and seconds between two creations (KubeVirt's protocol has 100 of them, 0.1 s apart).
_COUNT: Final = int(os.environ.get("QVIRT_BENCH_VMIS", "50"))
_SPACING: Final = 0.1
#: That many exist at once; more would measure how the node swaps.
_BATCH: Final = int(os.environ.get("QVIRT_BENCH_BATCH", "10"))
_NAMESPACE: Final = "qvirt-bench"
_POLL_SECONDS: Final = 0.1
_DEADLINE: Final = 600.0
#: PUT and PATCH of instances, and PATCH of pods, for each (peers.md 3.2, v1.8).
_KUBEVIRT_WRITES: Final = 8.5
_REQUEST: Final = re.compile(r"^apiserver_request_total\{(.*)\} ([0-9.e+]+)$", re.M)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')

_VMIS: Final = f"/apis/kubevirt.io/v1/namespaces/{_NAMESPACE}/virtualmachineinstances"
_PODS: Final = f"/api/v1/namespaces/{_NAMESPACE}/pods"
Writes = Counter[tuple[str, str, str]]


async def measure() -> Measured:
    """Batches in turns: pods, guests."""
    pause = _pause_image()
    ours: list[float] = []
    base: list[float] = []
    writes: Writes = Counter()
    async with Kube() as kube:
        await _make_namespace(kube)
        try:
            for start in range(0, _COUNT, _BATCH):
                names = [f"b{number}" for number in range(start, min(start + _BATCH, _COUNT))]
                base += await _batch(kube, _PODS, names, lambda name: _pod(name, pause))
                before = _writes()
                ours += await _batch(kube, _VMIS, names, _vmi)
                writes += _writes() - before
                await _clear(kube, names)
        finally:
            await kube.delete(f"/api/v1/namespaces/{_NAMESPACE}")
    return Measured(figures=_figures(ours, base, writes), notes=_NOTES, table=_table(writes))


_NOTES: Final = (
    f"{_COUNT} of each, {_SPACING * 1000:.0f} ms apart, {_BATCH} at once on one node, images present; Running as a client sees it, "
    f"asking every {_POLL_SECONDS * 1000:.0f} ms. The guests are machines without a disk: what they boot is measured elsewhere.",
    "Writes are counted by the API server, as in KubeVirt's benchmark: UPDATE and PATCH of instances, PATCH of pods without the kubelet's "
    "(which patches the status). Other writes of the time are in the table.",
)


def _figures(ours: list[float], base: list[float], writes: Writes) -> tuple[Figure, ...]:
    def latency(name: str, share: float, aim: float) -> Figure:
        return Figure(
            name=f"creation -> Running, {name}",
            unit="s",
            ours=(_quantile(ours, share),),
            baseline=(_quantile(base, share),),
            baseline_name="a pause pod, creation -> Running",
            kind="difference",
            aim=aim,
        )

    counted = sum(
        count
        for (verb, resource, sub), count in writes.items()
        if (resource == "virtualmachineinstances" and verb in ("PUT", "PATCH", "APPLY"))
        or (resource == "pods" and not sub and verb in ("PUT", "PATCH", "APPLY"))
    )
    return (
        latency("P50", 0.5, 1.0),
        latency("P95", 0.95, 3.0),
        Figure(
            name="API writes for each VMI, creation -> Running",
            unit="writes",
            ours=(round(counted / _COUNT, 2),),
            baseline=(_KUBEVIRT_WRITES,),
            baseline_name="KubeVirt 1.8's benchmark, counted the same way",
            kind="value",
            aim=4.0,
        ),
    )


def _table(writes: Writes) -> tuple[tuple[str, ...], ...]:
    rows = [
        (verb, f"{resource}/{sub}".rstrip("/"), f"{count / _COUNT:.2f}")
        for (verb, resource, sub), count in sorted(writes.items(), key=lambda item: -item[1])
        if count >= _COUNT / 10
    ]
    return (("verb", "resource", "for each VMI"), *rows)


def _quantile(samples: list[float], share: float) -> float:
    ordered = sorted(samples)
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 2)


async def _batch(
    kube: Kube, path: str, names: list[str], make: Callable[[str], Object]
) -> list[float]:
    """Seconds from creation to Running of each."""
    created: dict[str, float] = {}
    running: dict[str, float] = {}

    async def create() -> None:
        for name in names:
            created[name] = time.monotonic()
            await kube.create(path, make(name))
            await asyncio.sleep(max(0.0, created[name] + _SPACING - time.monotonic()))

    creating = asyncio.create_task(create())
    async with asyncio.timeout(_DEADLINE):
        while len(running) < len(names):
            listed = await kube.get(path)
            now = time.monotonic()
            for item in listed["items"]:
                name, phase = item["metadata"]["name"], (item.get("status") or {}).get("phase")
                if phase == "Failed":
                    raise BenchError(f"{path}/{name} failed: {item['status']}")
                if phase == "Running" and name in created:
                    running.setdefault(name, now)
            await asyncio.sleep(_POLL_SECONDS)
    await creating
    return [running[name] - created[name] for name in names]


async def _clear(kube: Kube, names: list[str]) -> None:
    """Delete everything and wait until it is gone."""
    for path in (_VMIS, _PODS):
        for name in names:
            try:
                await kube.delete(f"{path}/{name}", {"gracePeriodSeconds": 0})
            except NotFound:
                continue
    async with asyncio.timeout(_DEADLINE):
        while any([(await kube.get(path))["items"] for path in (_VMIS, _PODS)]):
            await asyncio.sleep(1)


async def _make_namespace(kube: Kube) -> None:
    try:
        await kube.create(
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}},
        )
    except Conflict:
        await _clear(kube, [f"b{number}" for number in range(_COUNT)])
    except KubeError as error:
        raise BenchError(
            f"no cluster ({error}): set KUBECONFIG; make cluster && make deploy"
        ) from error


def _writes() -> Writes:
    """What the API server has counted so far: verb, resource and subresource."""
    text = subprocess.run(
        ["kubectl", "get", "--raw", "/metrics"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    found: Writes = Counter()
    for labels, value in _REQUEST.findall(text):
        seen = dict(_LABEL.findall(labels))
        if seen["verb"] not in ("GET", "LIST", "WATCH", "CONNECT"):
            found[seen["verb"], seen["resource"], seen.get("subresource", "")] += int(float(value))
    return found


def _pause_image() -> str:
    """The image that the node's kubelet runs its own pause containers from."""
    nodes = subprocess.run(
        ["kubectl", "get", "nodes", "-o", "jsonpath={.items[*].status.images[*].names[*]}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    image = next((name for name in nodes.stdout.split() if "pause" in name), None)
    if nodes.returncode or image is None:
        raise BenchError(
            f"no cluster with a pause image is there ({nodes.stderr.strip()}): set KUBECONFIG"
        )
    return image


def _pod(name: str, image: str) -> Object:
    container = {"name": "pause", "image": image, "imagePullPolicy": "IfNotPresent"}
    spec = {
        "containers": [container],
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _vmi(name: str) -> Object:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "domain": {
                "memory": {"guest": "32Mi"},
                "resources": {"requests": {"cpu": "10m"}},
                "devices": {"autoattachGraphicsDevice": False},
            },
        },
    }
