"""A cluster with qvirt on it: the one that is there, else one for the time of the tests."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.e2e import pod_security
from tests.e2e.guests import DEMO_IMAGE, Guest

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = "127.0.0.1:5005"
_CLUSTER = (sys.executable, str(ROOT / "cluster" / "cluster.py"))
_DEPLOY = (sys.executable, str(ROOT / "operator" / "deploy.py"))
_IMAGES = ROOT / "build" / "images"
_DEMO = ROOT / "build" / "guest" / "demo-guest.oci.tar"
_SEED_IMAGE = "kubevirt/cirros-registry-disk-demo:devel"
_LOCK = Path("/run/qvirt-deploy.lock")
#: On their way out.
_NAMESPACES: Final[list[str]] = []

Object = dict[str, Any]


class Refused(Exception):
    """What kubectl said."""


class Cluster:
    """kubectl on the cluster, in a namespace of the test's own."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self._environment = {**os.environ, "KUBECONFIG": kubeconfig}
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self._pods: dict[str, Object] = {}

    def kubectl(self, *arguments: str, text: str = "", deadline: float = 120) -> str:
        """What it prints.

        :raise Refused: it failed, with what it said.
        """
        done = subprocess.run(
            ["kubectl", "-n", self.namespace, *arguments],
            env=self._environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=deadline,
        )
        if done.returncode != 0:
            raise Refused(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def apply(self, *objects: Object) -> None:
        """Create or change objects, as a user does."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", text=json.dumps(listed))

    def patch(self, kind: str, name: str, **spec: Any) -> None:
        """Merge into an object's spec."""
        patch = json.dumps({"spec": spec})
        self.kubectl("patch", kind, name, "--type=merge", f"--patch={patch}")

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

    def phase(self, name: str) -> str:
        """Of an instance; empty when there is none."""
        return str(self.get("vmi", name).get("status", {}).get("phase", ""))

    def printable(self, name: str) -> str:
        """What `kubectl get vm` shows."""
        return str(self.get("vm", name).get("status", {}).get("printableStatus", ""))

    def condition(self, kind: str, name: str, which: str) -> Object:
        """A condition of an object; empty: it has none of the type."""
        conditions = self.get(kind, name).get("status", {}).get("conditions") or []
        return next((c for c in conditions if c["type"] == which), {})

    def pods(self, name: str) -> list[Object]:
        """The launcher pods of an instance."""
        return self.items("pods", f"vmi.kubevirt.io/id={name}")

    def reasons(self, name: str) -> list[str]:
        """Of the Events about the objects of this name."""
        selector = f"--field-selector=involvedObject.name={name}"
        listed = json.loads(self.kubectl("get", "events", selector, "-o=json"))["items"]
        return [event["reason"] for event in listed]

    def running(self, name: str, deadline: float = 240) -> Guest:
        """The guest of an instance, as soon as it answers at the address of its status."""
        self.until(f"{name} runs", lambda: self.phase(name) == "Running", deadline)
        found: list[Guest] = []

        def answers() -> bool:
            interfaces = self.get("vmi", name)["status"].get("interfaces") or [{}]
            guest = Guest(interfaces[0].get("ipAddress") or "0.0.0.0")
            found[:] = [guest]
            return guest.answers()

        self.until(f"the guest of {name} answers", answers, deadline)
        for pod in self.pods(name):
            self._pods[pod["metadata"]["uid"]] = pod
        return found[0]

    def has_another(self, name: str, uid: str) -> bool:
        """Whether there is an instance of the name, and not the one with this uid."""
        vmi = self.get("vmi", name)
        return bool(vmi) and vmi["metadata"]["uid"] != uid

    def ready(self, component: str) -> list[str]:
        """Names of the pods of a part of qvirt that are Ready."""
        selector = f"--selector=kubevirt.io={component}"
        text = self.kubectl("get", "pods", "-n", "kubevirt", selector, "-o=json")
        return [
            pod["metadata"]["name"]
            for pod in json.loads(text)["items"]
            for condition in pod["status"].get("conditions", ())
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]

    def until(self, what: str, holds: Callable[[], bool], deadline: float = 180) -> None:
        """:raise AssertionError: not in time; the message has what the namespace looks like."""
        end = time.monotonic() + deadline
        while not holds():
            assert time.monotonic() < end, f"{what}: not within {deadline} s\n{self._picture()}"
            time.sleep(0.5)

    def check_pods(self) -> None:
        """Every launcher pod that was seen keeps PodSecurity `restricted`, also where the cluster doesn't look."""
        for pod in self._pods.values():
            assert not pod_security.breaches(pod["spec"]), pod["metadata"]["name"]

    def _picture(self) -> str:
        wide = self.kubectl("get", "vms,vmis,pods", "-o=wide")
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp")
        return f"{wide}\n{events}"


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[str]:
    """qvirt deployed, by the images of this tree. A cluster that was up before stays up, with qvirt."""
    for image in ("launcher", "operator"):
        _run(sys.executable, str(ROOT / "images" / "build.py"), image, "--output", str(_IMAGES))
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status = subprocess.run((*_CLUSTER, "status"), capture_output=True, timeout=60)
        ours = status.returncode != 0
        if ours:
            _run(*_CLUSTER, "up")
        path = _run(*_CLUSTER, "kubeconfig").strip()
        _run(*_DEPLOY, environment={"KUBECONFIG": path})
    try:
        for name in (DEMO_IMAGE, _SEED_IMAGE):
            push(_DEMO, name)
        yield path
        _await_gone(path)
        if ours:
            _run(*_DEPLOY, "--delete", environment={"KUBECONFIG": path})
    finally:
        if ours:
            _run(*_CLUSTER, "down")


def _await_gone(kubeconfig: str, deadline: float = 180) -> None:
    """:raise AssertionError: the deletion of a namespace sticks."""
    end = time.monotonic() + deadline
    for namespace in _NAMESPACES:
        ask = ("kubectl", "get", "namespace", namespace, "--ignore-not-found", "-o=yaml")
        while found := _run(*ask, environment={"KUBECONFIG": kubeconfig}):
            assert time.monotonic() < end, f"not gone within {deadline} s:\n{found}"
            time.sleep(0.5)


@pytest.fixture
def cluster(kubeconfig: str, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A namespace of its own, which goes with all that is in it when the test ends; the session's end waits for it."""
    # Long names of parameterised tests differ only in what is cut off, so each has its number.
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:45].strip("-")
    namespace = f"{name}-{os.getpid()}-{len(_NAMESPACES)}"
    found = Cluster(kubeconfig, namespace)
    found.kubectl("create", "namespace", namespace)
    found.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield found
        found.check_pods()
    finally:
        found.kubectl("delete", "namespace", namespace, "--wait=false")
        _NAMESPACES.append(namespace)


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
