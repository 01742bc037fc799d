"""Which writes of a cluster are counted as ours."""

from __future__ import annotations

from typing import Any

from qvirt_bench.api_writes import Seen, Writes
from qvirt_bench.parts import cluster


def seen(kind: str, name: str, namespace: str = "ours", **more: Any) -> Seen:
    status, meta = more.pop("status", {}), {"name": name, "namespace": namespace, **more}
    return Seen(at=0.0, type=kind, item={"metadata": meta, "status": status})


def test_writes_of_other_peoples_instances_are_not_ours() -> None:
    instances = "virtualmachineinstances"
    counted = Writes(
        {
            ("PATCH", instances, ""): 5,
            ("POST", instances, ""): 1,
            ("PATCH", "pods", "status"): 9,
        }
    )
    told = [
        seen("ADDED", "a"),
        seen("MODIFIED", "a"),
        seen("ADDED", "b", "theirs"),
        seen("MODIFIED", "b", "theirs"),
        seen("MODIFIED", "b", "theirs"),
    ]
    found = cluster._instance_writes(told, "ours", counted)
    assert found == {("PATCH", instances, ""): 3}


def test_of_a_pods_changes_the_kubelets_are_not_ours() -> None:
    gate = {"type": "kubevirt.io/virtual-machine-unpaused", "status": "True"}
    told = [
        seen("ADDED", "p", labels={"a": "1"}),
        seen("MODIFIED", "p", labels={"a": "1"}, status={"phase": "Running"}),
        seen("MODIFIED", "p", labels={"a": "1"}, status={"conditions": [gate]}),
        seen("MODIFIED", "p", labels={"a": "1"}, status={"conditions": [gate], "phase": "x"}),
        seen("MODIFIED", "p", labels={"a": "2"}, status={"conditions": [gate]}),
        seen("DELETED", "p", labels={"a": "3"}),
    ]
    assert cluster._pod_writes(told) == 2


def test_quantiles_and_batches() -> None:
    assert cluster._quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 3.0
    assert cluster._quantile([1.0], 0.95) == 1.0
    names = [name for batch in cluster._named(7) for name in batch]
    assert len(names) == len(set(names))
    assert all(len(batch) <= 7 for batch in cluster._named(7))
