"""What `operator/deploy.py` installs: the manifests with names of images, as many replicas as make sense, and what that costs a node."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from qvirt_bench.parts.control_plane import requested

ROOT = Path(__file__).parents[2]
IMAGES = {"operator": "registry/qvirt/operator@sha256:1", "launcher": "registry/qvirt/launcher:2"}


@pytest.fixture(scope="module")
def deploy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy", ROOT / "operator" / "deploy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installed(deploy: ModuleType, nodes: int) -> dict[str, Any]:
    """Name -> Deployment or DaemonSet."""
    documents: list[dict[str, Any]] = []
    for name in deploy.ALL:
        text = (ROOT / "operator" / "manifests" / name).read_text()
        made = deploy.manifest(text, IMAGES, emulation=True, nodes=nodes)
        documents += [document for document in yaml.safe_load_all(made) if document]
    kinds = ("Deployment", "DaemonSet")
    return {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] in kinds}


@pytest.mark.parametrize(("nodes", "apis"), [(1, 1), (2, 2), (50, 2)])
def test_replicas(deploy: ModuleType, nodes: int, apis: int) -> None:
    parts = installed(deploy, nodes)
    assert parts["virt-api"]["replicas"] == apis
    # The standby takes over in seconds where a new process takes longer.
    assert parts["virt-controller"]["replicas"] == 2


def test_a_rollout_keeps_a_virt_api(deploy: ModuleType) -> None:
    rolling = installed(deploy, 1)["virt-api"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 0, "maxSurge": 1}


def test_every_image_has_its_name(deploy: ModuleType) -> None:
    for spec in installed(deploy, 1).values():
        pod = spec["template"]["spec"]
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert container["image"] in IMAGES.values()


def test_a_node_gives_little_to_the_control_plane(deploy: ModuleType) -> None:
    total = sum(
        spec.get("replicas", 1) * requested(spec["template"]["spec"])
        for spec in installed(deploy, 1).values()
    )
    assert total <= 200 * 2**20


def test_an_init_container_counts_where_it_asks_for_more() -> None:
    def container(memory: str) -> dict[str, Any]:
        return {"resources": {"requests": {"memory": memory}}}

    some = [container("10Mi"), container("20Mi"), {}]
    assert requested({"containers": some}) == 30 * 2**20
    assert requested({"containers": some, "initContainers": [container("50Mi")]}) == 50 * 2**20
    assert requested({"containers": some, "initContainers": [container("25Mi")]}) == 30 * 2**20
