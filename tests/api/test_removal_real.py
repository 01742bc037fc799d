"""`deploy.py --delete` while virt-api is broken: its webhooks are there, and nobody answers them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.api.bad_manifests import machine
from tests.api.conftest import MANIFESTS, ROOT
from tests.control_plane import control_plane

from qvirt_kube.client import Kube
from qvirt_kube.errors import NotFound

Object = dict[str, Any]


@pytest.fixture
def deploy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy", ROOT / "operator" / "deploy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_delete_without_virt_api(
    deploy: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with control_plane(tmp_path) as server:
        monkeypatch.setenv("KUBECONFIG", server.kubeconfig())
        crds = sorted((ROOT / "crds").glob("*.yaml"))
        for file in (MANIFESTS / "00-namespace.yaml", *crds):
            server.kubectl("apply", "-f", str(file))
        kinds = [f"crd/{crd.stem}.kubevirt.io" for crd in crds]
        server.kubectl("wait", "--for=condition=Established", "--timeout=30s", *kinds)
        server.kubectl("create", "-f", "-", stdin=json.dumps(machine()))
        # This API server admits no privileged pods.
        for name in (name for name in deploy.ALL if name != "virt-handler.yaml"):
            server.kubectl("apply", "-f", str(MANIFESTS / name))
        with pytest.raises(AssertionError, match="webhook"):
            server.kubectl("create", "-f", "-", stdin=json.dumps(machine()))

        async with Kube(server.kubeconfig()) as kube:
            ending = asyncio.create_task(_end_namespaces(kube))
            try:
                status = await asyncio.to_thread(deploy.main, ["--delete"])
            finally:
                ending.cancel()
                await asyncio.gather(ending, return_exceptions=True)
            assert status == 0, capsys.readouterr().err
            for path in (
                "/apis/kubevirt.io/v1/virtualmachines",
                "/api/v1/namespaces/kubevirt",
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/virt-api-mutator",
                "/apis/apiregistration.k8s.io/v1/apiservices/v1.subresources.kubevirt.io",
            ):
                with pytest.raises(NotFound):
                    await kube.get(path)


async def _end_namespaces(kube: Kube) -> None:
    """The namespace controller's part: there is none here."""
    while True:
        for namespace in (await kube.get("/api/v1/namespaces"))["items"]:
            if "deletionTimestamp" in namespace["metadata"]:
                namespace["spec"]["finalizers"] = []
                name = namespace["metadata"]["name"]
                await kube.replace(f"/api/v1/namespaces/{name}/finalize", namespace)
        await asyncio.sleep(0.2)
