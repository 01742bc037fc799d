"""How a component finds the API server: as a pod without the package kubernetes, elsewhere by a kubeconfig."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.control_plane import ApiServer

from qvirt_kube import access
from qvirt_kube.client import Kube
from qvirt_kube.errors import NoAccess

#: What an image of ours does without; each costs every component of every cluster 1 to 16 MiB.
ABSENT = ("kubernetes", "pydantic", "requests", "urllib3", "oauthlib", "click", "grpc")


@pytest.fixture
def service_account(api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files and the environment of a pod."""
    token = json.loads(Path(api_server.kubeconfig()).read_text())["users"][0]["user"]["token"]
    (tmp_path / "token").write_text(f"{token}\n")
    shutil.copy(api_server.ca, tmp_path / "ca.crt")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api_server.port))
    monkeypatch.setattr(access, "SERVICE_ACCOUNT", tmp_path)
    return tmp_path


async def test_a_pod_logs_in_with_its_token(service_account: Path) -> None:
    async with Kube() as kube:
        who = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
        asked = {**who, "spec": {"resourceAttributes": {"verb": "*", "resource": "*"}}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        assert (await kube.create(path, asked))["status"]["allowed"] is True


async def test_a_token_that_is_replaced_is_used(
    service_account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = access.in_pod(service_account)
    assert found is not None
    first = await found.authorization()
    (service_account / "token").write_text("another")
    assert await found.authorization() == first
    monkeypatch.setattr(access, "_FRESH", -1.0)
    assert await found.authorization() == "Bearer another"


def test_an_authority_that_is_none(service_account: Path) -> None:
    (service_account / "ca.crt").write_text("no certificate")
    with pytest.raises(NoAccess, match=r"ca\.crt: not usable"):
        access.in_pod(service_account)


def test_no_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    assert access.in_pod(tmp_path) is None, "no service account"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert access.in_pod(tmp_path) is None


async def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoAccess, match="nothing-there"):
        await Kube(str(tmp_path / "nothing-there")).__aenter__()


@pytest.mark.parametrize("component", ["qvirt_operator", "qvirt_api", "qvirt_handler"])
def test_components_do_without_heavy_packages(component: str, tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules |= dict.fromkeys({ABSENT!r})
sys.argv = ["{component}", "--kubeconfig=x", *sys.argv[1:]]
import qvirt_handler.device_plugin.plugin
from {component}.main import main
print([name for name in {ABSENT!r} if sys.modules[name] is not None])
sys.exit(main())
"""
    more = {"qvirt_operator": ["--launcher-image=x"], "qvirt_handler": ["--node-name=x"]}
    run = subprocess.run(
        [sys.executable, "-P", "-c", script, *more.get(component, [])],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert run.stdout.splitlines() == ["[]"], run.stderr
    assert run.returncode == 2, "it is in no pod, and can't read kubeconfigs"
    assert "a kubeconfig can't be read" in run.stderr
    assert "Traceback" not in run.stderr
