"""The door to the API server: each kind of answer is its own error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.control_plane import ApiServer
from tests.operator.conftest import CONTROLLER

from qvirt_kube.client import Kube
from qvirt_kube.errors import Conflict, NotFound, Refused, Unavailable


async def test_answers(kube: Kube, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    made = await kube.create(path, {"metadata": {"name": "x"}, "data": {"a": "1"}})
    with pytest.raises(Conflict, match="already exists"):
        await kube.create(path, {"metadata": {"name": "x"}})
    await kube.patch(f"{path}/x", {"data": {"a": "2"}})
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    with pytest.raises(Conflict):
        await kube.patch(f"{path}/x", {**stale, "data": {"a": "3"}})
    with pytest.raises(Conflict):
        await kube.replace(f"{path}/x", made)
    await kube.patch(f"{path}/x", [{"op": "add", "path": "/data/b", "value": "1"}], "json")
    applied = await kube.apply(
        f"{path}/x",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "4"}},
        "test",
    )
    assert applied["data"] == {"a": "4", "b": "1"}
    with pytest.raises(Refused, match=r"metadata\.name"):
        await kube.create(path, {"metadata": {"name": "NOT A NAME"}})
    wrong = {"preconditions": {"uid": "other"}}
    with pytest.raises(Conflict):
        await kube.delete(f"{path}/x", wrong)
    await kube.delete(f"{path}/x")
    with pytest.raises(NotFound, match=f"GET {path}/x: .*not found"):
        await kube.get(f"{path}/x")


async def test_no_right(api_server: ApiServer) -> None:
    async with Kube(api_server.kubeconfig(CONTROLLER)) as kube:
        with pytest.raises(Refused, match="forbidden"):
            await kube.get("/api/v1/namespaces/kube-system/secrets")


async def test_nobody_there(api_server: ApiServer, tmp_path: Path) -> None:
    config = json.loads(Path(api_server.kubeconfig()).read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    async with Kube(str(path)) as kube:
        with pytest.raises(Unavailable, match="GET /api: "):
            await kube.get("/api")
