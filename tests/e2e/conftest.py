"""A cluster with qvirt on it: the one that is there, else one for the time of the tests."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = "127.0.0.1:5005"
_CLUSTER = (sys.executable, str(ROOT / "cluster" / "cluster.py"))
_DEPLOY = (sys.executable, str(ROOT / "operator" / "deploy.py"))
_IMAGES = ROOT / "build" / "images"
_LOCK = Path("/run/qvirt-e2e.lock")

Object = dict[str, Any]


class Cluster:
    """kubectl on the cluster, in a namespace of the test's own."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self._environment = {**os.environ, "KUBECONFIG": kubeconfig}
        self.namespace = namespace

    def kubectl(self, *arguments: str, text: str = "", deadline: float = 120) -> str:
        """:raise AssertionError: it failed, with what it said."""
        done = subprocess.run(
            ["kubectl", "-n", self.namespace, *arguments],
            env=self._environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=deadline,
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def get(self, kind: str, name: str) -> Object:
        """An object; empty when there is none."""
        text = self.kubectl("get", kind, name, "--ignore-not-found", "-o=json")
        found: Object = json.loads(text) if text.strip() else {}
        return found

    def items(self, kind: str, selector: str = "") -> list[Object]:
        """The objects of the namespace."""
        found: list[Object] = json.loads(
            self.kubectl("get", kind, "-o=json", f"--selector={selector}")
        )["items"]
        return found

    def until(self, what: str, holds: Callable[[], bool], deadline: float = 180) -> None:
        """:raise AssertionError: not in time; the message has what the namespace looks like."""
        end = time.monotonic() + deadline
        while not holds():
            assert time.monotonic() < end, f"{what}: not within {deadline} s\n{self._picture()}"
            time.sleep(0.5)

    def _picture(self) -> str:
        wide = self.kubectl("get", "vms,vmis,pods", "-o=wide")
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp")
        return f"{wide}\n{events}"


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[str]:
    """qvirt deployed, by the images of this tree. A cluster that was up before stays up, without qvirt.

    One session at a time: the machine has one cluster.
    """
    for image in ("launcher", "operator"):
        _run(sys.executable, str(ROOT / "images" / "build.py"), image, "--output", str(_IMAGES))
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status = subprocess.run((*_CLUSTER, "status"), capture_output=True, timeout=60)
        ours = status.returncode != 0
        if ours:
            _run(*_CLUSTER, "up")
        path = _run(*_CLUSTER, "kubeconfig").strip()
        environment = {"KUBECONFIG": path}
        try:
            _run(*_DEPLOY, environment=environment)
            yield path
            _run(*_DEPLOY, "--delete", environment=environment)
        finally:
            if ours:
                _run(*_CLUSTER, "down")


@pytest.fixture
def cluster(kubeconfig: str, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A namespace of its own, gone with all that is in it when the test ends."""
    namespace = request.node.name.replace("_", "-")[:50]
    found = Cluster(kubeconfig, namespace)
    found.kubectl("create", "namespace", namespace)
    found.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield found
    finally:
        found.kubectl("delete", "namespace", namespace, "--timeout=120s", deadline=150)


def push(archive: Path, name: str) -> None:
    """Put an oci-archive into the cluster's registry."""
    target = f"docker://{REGISTRY}/{name}"
    _run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci-archive:{archive}", target)


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout
