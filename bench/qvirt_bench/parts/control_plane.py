"""What our manifests ask of a node before the first guest, against KubeVirt's; and what a running installation uses."""

from __future__ import annotations

from typing import Any, Final

import yaml

from qvirt_bench import smaps
from qvirt_bench.figures import Figure, Measured
from qvirt_bench.image_root import ROOT
from qvirt_crds.quantity import parse_bytes

#: virt-operator 2 x 450, virt-api 500, virt-controller 2 x 275, virt-handler 325 MiB (peers.md 3.4).
_KUBEVIRT_MIB: Final = 2275.0
_MANIFESTS: Final = ROOT / "operator" / "manifests"


async def measure() -> Measured:
    """Sums of the containers' memory requests, replicas counted; one node."""
    rows = [("workload", "replicas", "memory requested, MiB")]
    total = 0.0
    for file in sorted(_MANIFESTS.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document and document["kind"] in ("Deployment", "DaemonSet"):
                replicas = document["spec"].get("replicas", 1)
                asked = _requested(document["spec"]["template"]["spec"])
                total += replicas * asked
                rows.append((document["metadata"]["name"], str(replicas), f"{asked:.0f}"))
    figure = Figure(
        name="memory requested by the control plane, one node",
        unit="MiB",
        ours=(total,),
        baseline=(_KUBEVIRT_MIB,),
        baseline_name="KubeVirt on a single node (its manifests)",
        kind="value",
        aim=200.0,
    )
    return Measured(figures=(figure,), table=tuple(rows))


def _requested(spec: dict[str, Any]) -> float:
    return sum(
        parse_bytes(container["resources"]["requests"]["memory"]) / smaps.MIB
        for container in spec["containers"]
    )
