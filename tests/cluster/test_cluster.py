"""The real cluster: up on the bare machine, pods and Services work, components are killed, and down leaves nothing.

A cluster that runs already (`make cluster`) is used and stays; what ends or breaks one is then skipped.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from qvirt_cluster import processes
from qvirt_cluster.binaries import obtain
from qvirt_cluster.build import PROGRAMS
from qvirt_cluster.claim import read_claim
from qvirt_cluster.layout import BRIDGE, CLAIM, KUBELET_ROOT, MARK, REGISTRY_PORT, Layout
from qvirt_cluster.oci import oci_archive

# The first one may have to build Kubernetes.
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(3600)]

IMAGE: Final = "busybox:test"
WEB: Final = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: cluster-test, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 107, fsGroup: 107, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: web
    image: busybox:test
    command: [sh, -c, "echo started as $(busybox id -u); echo hello from web >/www/index.html; exec httpd -f -p 8080 -h /www"]
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    volumeMounts: [{name: www, mountPath: /www}]
  volumes: [{name: www, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: cluster-test}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
"""
CUSTOM_KIND: Final = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.cluster-test.example}
spec:
  group: cluster-test.example
  scope: Namespaced
  names: {kind: Thing, plural: things}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {size: {type: integer}}}}
"""
HELLO: Final = "hello from web\n"


@dataclass
class Cluster:
    """:param shared: it was there before the tests, and stays.
    :param links: network interfaces seen on its bridge.
    """

    layout: Layout
    shared: bool
    links: set[str] = field(default_factory=set)

    def pid(self, component: str) -> int:
        record = processes.recorded(self.layout, component)
        assert record is not None
        return record.pid


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).resolve().parents[2] / "cluster/cluster.py"
    return subprocess.run(
        ["/usr/bin/env", "python3", script, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )


def custom_object(size: int) -> str:
    return f"""
apiVersion: cluster-test.example/v1
kind: Thing
metadata: {{name: one, namespace: cluster-test}}
spec: {{size: {size}}}
"""


def kubectl(cluster: Cluster, *arguments: str, stdin: str = "", status: int = 0) -> str:
    done = subprocess.run(
        ["kubectl", f"--kubeconfig={cluster.layout.admin_kubeconfig}", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stdout + done.stderr


def get(address: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def push_busybox(folder: Path) -> None:
    """busybox as docker.io/library/busybox:test, by way of the local registry."""
    program = Path("/bin/busybox").read_bytes()
    links = {f"bin/{name}": "busybox" for name in ("sh", "sleep", "httpd", "nc", "timeout")}
    archive = folder / "busybox.tar"
    name = f"docker.io/library/{IMAGE}"
    files: dict[str, bytes | str] = {"bin/busybox": program, **links}
    archive.write_bytes(oci_archive(files, ("/bin/sh",), name, platform.machine()))
    target = f"docker://127.0.0.1:{REGISTRY_PORT}/library/{IMAGE}"
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci-archive:{archive}", target],
        check=True,
        timeout=60,
    )


@pytest.fixture
def state() -> Iterator[Path]:
    """A directory for a cluster of one test; its cluster is removed."""
    if read_claim() is not None:
        pytest.skip("this machine has a cluster, which stays as it is")
    path = Path(tempfile.mkdtemp(prefix="qvc-"))
    yield path
    assert command("down", "--state-dir", str(path)).returncode == 0
    shutil.rmtree(path, ignore_errors=True)


def leftovers(state: Path) -> list[str]:
    """Whatever of a cluster can be seen on this machine, by other means than the program's own."""
    mark = f"{MARK}={state}".encode()
    found = [f"process {pid}" for pid in living() if mark in environment(pid).split(b"\0")]
    found += [
        f"mount {line.split()[4]}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(state) in line or line.split()[4].startswith(str(KUBELET_ROOT))
    ]
    for save in ("iptables-save", "ip6tables-save"):
        text = subprocess.run([save], capture_output=True, text=True, check=True).stdout
        found += [line for line in text.splitlines() if "KUBE-" in line or "CNI-" in line]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob("**/kubepods")]
    found += [str(path) for path in Path("/var/lib/cni/results").glob("*")]
    found += [str(path) for path in Path("/run/containerd/s").glob("*")]
    found += [f"interface {BRIDGE}"] if Path(f"/sys/class/net/{BRIDGE}").exists() else []
    places = (KUBELET_ROOT, Path("/var/log/pods"), Path("/var/log/containers"), CLAIM, state)
    found += [f"file {path}" for path in places if path.exists() or path.is_symlink()]
    return found


def living() -> list[int]:
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [pid for pid in pids if processes.start_time(pid) is not None]


def environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def cgroup_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


# A bare machine, and what goes wrong on it. First, because they need a machine without a cluster.


def test_a_component_that_ends_is_named_with_its_last_words(state: Path, tmp_path: Path) -> None:
    for program in PROGRAMS:
        (tmp_path / program).write_text("#!/bin/sh\necho Kubernetes v1.20.2\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / "kube-apiserver").write_text("#!/bin/sh\necho no such luck\nexit 3\n")
    done = command("up", "--state-dir", str(state), K8S_BIN_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "error: kube-apiserver ended with status 3" in done.stderr
    assert "    no such luck" in done.stderr
    assert "Traceback" not in done.stderr
    assert command("status", "--state-dir", str(state)).returncode == 1


def test_a_port_that_is_taken_is_told_with_its_holder(state: Path, tmp_path: Path) -> None:
    for program in PROGRAMS:
        (tmp_path / program).write_text("#!/bin/sh\necho Kubernetes v1.20.2\n")
        (tmp_path / program).chmod(0o755)
    with socket.create_server(("127.0.0.1", REGISTRY_PORT)):
        done = command("up", "--state-dir", str(state), K8S_BIN_DIR=str(tmp_path))
    assert done.returncode == 2
    assert f"registry needs TCP port {REGISTRY_PORT}, which is taken" in done.stderr
    assert f"pid={os.getpid()}" in done.stderr


def test_a_directory_whose_sockets_could_not_be_opened_is_refused() -> None:
    done = command("up", "--state-dir", f"/tmp/{'x' * 60}")
    assert done.returncode == 2
    assert "take a shorter one" in done.stderr


def test_a_directory_with_something_else_in_it_is_refused(state: Path) -> None:
    (state / "thesis.txt").touch()
    done = command("up", "--state-dir", str(state))
    assert done.returncode == 2
    assert "holds something that is no cluster" in done.stderr
    assert command("down", "--state-dir", str(state)).returncode == 0
    assert (state / "thesis.txt").exists()


def test_up_that_was_killed_leaves_nothing_after_down(state: Path) -> None:
    obtain(os.environ)  # so that what follows is about starting, not building
    script = Path(__file__).resolve().parents[2] / "cluster/cluster.py"
    with subprocess.Popen(
        ["/usr/bin/env", "python3", script, "up", "--state-dir", str(state)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stderr is not None
        for line in up.stderr:
            if "kube-apiserver is healthy" in line:
                break
        up.kill()
    assert leftovers(state)
    assert command("down", "--state-dir", str(state)).returncode == 0
    assert leftovers(state) == []


# One cluster for the rest, in the order of its life.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    claim = read_claim()
    state = Path(claim.state) if claim is not None else Path(tempfile.mkdtemp(prefix="qvc-"))
    found = Cluster(Layout(state), shared=claim is not None)
    done = command("up", "--state-dir", str(state))
    try:
        assert done.returncode == 0, done.stderr
        with tempfile.TemporaryDirectory() as room:
            push_busybox(Path(room))
        kubectl(found, "create", "namespace", "cluster-test")
        yield found
    finally:
        if found.shared:
            kubectl(found, "delete", "namespace", "cluster-test", "--timeout=120s")
        else:
            assert command("down", "--state-dir", str(state)).returncode == 0


@pytest.fixture
def own(cluster: Cluster) -> Cluster:
    """A cluster that may be broken."""
    if cluster.shared:
        pytest.skip("this machine's cluster stays as it is")
    return cluster


def test_the_node_is_ready_and_status_says_so(cluster: Cluster) -> None:
    nodes = json.loads(kubectl(cluster, "get", "nodes", "-o", "json"))["items"]
    assert len(nodes) == 1
    ready = [entry for entry in nodes[0]["status"]["conditions"] if entry["type"] == "Ready"]
    assert ready[0]["status"] == "True"
    done = command("status")
    assert done.returncode == 0, done.stdout
    assert "kube-apiserver" in done.stdout


def test_the_kubeconfig_is_told(cluster: Cluster) -> None:
    path = command("kubeconfig").stdout.strip()
    assert path == str(cluster.layout.admin_kubeconfig)
    assert Path(path).stat().st_mode & 0o077 == 0


def test_up_again_changes_nothing(cluster: Cluster) -> None:
    def pids() -> dict[str, int]:
        return {path.stem: cluster.pid(path.stem) for path in cluster.layout.run.glob("*.json")}

    before = pids()
    assert command("up", "--state-dir", str(cluster.layout.state)).returncode == 0
    assert pids() == before


def test_a_second_cluster_is_refused(cluster: Cluster) -> None:
    done = command("up", "--state-dir", "/tmp/qvc-second")
    assert done.returncode == 2
    assert f"down --state-dir {cluster.layout.state}" in done.stderr
    assert not Path("/tmp/qvc-second").exists()


def test_an_unprivileged_pod_runs_from_a_mirrored_image(cluster: Cluster) -> None:
    kubectl(cluster, "apply", "-f", "-", stdin=WEB)
    kubectl(
        cluster, "-n", "cluster-test", "wait", "--for=condition=Ready", "pod/web", "--timeout=120s"
    )
    links = json.loads(
        subprocess.check_output(["ip", "-json", "link", "show", "master", BRIDGE], text=True)
    )
    cluster.links.update(link["ifname"] for link in links)
    assert cluster.links


def test_logs_and_exec_work(cluster: Cluster) -> None:
    assert kubectl(cluster, "-n", "cluster-test", "logs", "web") == "started as 107\n"
    text = kubectl(cluster, "-n", "cluster-test", "exec", "web", "--", "sh", "-c", "echo $((6*7))")
    assert text == "42\n"


def test_the_pods_address_answers(cluster: Cluster) -> None:
    path = "jsonpath={.status.podIP}"
    address = kubectl(cluster, "-n", "cluster-test", "get", "pod", "web", "-o", path)
    assert get(f"{address}:8080") == HELLO


def test_the_service_answers_by_cluster_ip_and_node_port(cluster: Cluster) -> None:
    service = kubectl(
        cluster, "-n", "cluster-test", "get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"
    )
    path = 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}'
    node = kubectl(cluster, "get", "nodes", "-o", path)
    # The rules of a new Service come with kube-proxy's next turn.
    assert eventually(lambda: get(service) == HELLO)
    assert get(f"{node}:30080") == HELLO
    assert get("127.0.0.1:30080") == HELLO


def test_pods_reach_services_and_the_api_server(cluster: Cluster) -> None:
    service = kubectl(
        cluster, "-n", "cluster-test", "get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"
    )
    in_pod = ("-n", "cluster-test", "exec", "web", "--", "sh", "-c")
    # To itself through the Service: the bridge's hairpin, and the masquerading rule that goes with it.
    ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 10 nc {service} 80"
    assert HELLO in kubectl(cluster, *in_pod, ask)
    kubectl(cluster, *in_pod, "timeout 10 nc 10.96.0.1 443 </dev/null")


def test_an_image_that_nobody_has_fails_soon(cluster: Cluster) -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: lost, namespace: cluster-test}\nspec:\n  containers: [{name: a, image: registry.example/no/such:1}]\n"
    kubectl(cluster, "apply", "-f", "-", stdin=pod)
    path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
    assert eventually(
        lambda: (
            "ImagePull" in kubectl(cluster, "-n", "cluster-test", "get", "pod", "lost", "-o", path)
        )
    )
    # Not waited for: a 1.20 kubelet looks once a minute for pods that never had a container.
    kubectl(cluster, "-n", "cluster-test", "delete", "pod", "lost", "--wait=false")


def test_the_api_server_takes_aggregated_apis(cluster: Cluster) -> None:
    """It publishes the authority by which an aggregated API knows it, only if the flags are set."""
    name = "extension-apiserver-authentication"
    found = json.loads(
        kubectl(cluster, "-n", "kube-system", "get", "configmap", name, "-o", "json")
    )
    assert "BEGIN CERTIFICATE" in found["data"]["requestheader-client-ca-file"]
    assert json.loads(found["data"]["requestheader-allowed-names"]) == ["front-proxy-client"]


def test_custom_objects_can_be_created_and_changed(cluster: Cluster) -> None:
    """A kube-apiserver with an old reflect2 crashes here when it was built with a newer Go."""
    for document in (CUSTOM_KIND, custom_object(1), custom_object(2)):
        assert eventually(partial(applied, cluster, document))
    path = "jsonpath={.spec.size}"
    names = ("things.cluster-test.example", "one")
    assert kubectl(cluster, "-n", "cluster-test", "get", *names, "-o", path) == "2"
    kubectl(cluster, "delete", "crd", "things.cluster-test.example", "--timeout=60s")


def applied(cluster: Cluster, document: str) -> bool:
    """Whether it could be applied; a kind is served a moment after its definition was accepted."""
    done = subprocess.run(
        ["kubectl", f"--kubeconfig={cluster.layout.admin_kubeconfig}", "apply", "-f", "-"],
        input=document,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode == 0


def test_pod_security_is_as_status_tells(cluster: Cluster) -> None:
    label = "pod-security.kubernetes.io/enforce=restricted"
    kubectl(cluster, "label", "--overwrite", "namespace", "cluster-test", label)
    pod = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: root, namespace: cluster-test}}\nspec:\n  containers: [{{name: a, image: '{IMAGE}'}}]\n"
    enforced = "PodSecurity              enforced" in command("status").stdout
    text = kubectl(
        cluster, "apply", "--dry-run=server", "-f", "-", stdin=pod, status=1 if enforced else 0
    )
    assert ("violates PodSecurity" in text) == enforced
    kubectl(cluster, "label", "namespace", "cluster-test", "pod-security.kubernetes.io/enforce-")


def test_a_pod_survives_killed_components_and_up_mends_them(own: Cluster) -> None:
    for component in ("kube-apiserver", "containerd", "kubelet", "kube-proxy"):
        os.kill(own.pid(component), signal.SIGKILL)
    done = command("status")
    assert done.returncode == 1
    assert done.stdout.count("stopped") == 4
    assert command("up", "--state-dir", str(own.layout.state)).returncode == 0
    path = "jsonpath={.status.containerStatuses[0].restartCount} {.status.phase}"
    assert kubectl(own, "-n", "cluster-test", "get", "pod", "web", "-o", path) == "0 Running"
    assert get("127.0.0.1:30080") == HELLO


def test_down_leaves_nothing_even_after_kills(own: Cluster) -> None:
    containers = [pid for pid in living() if "kubepods" in cgroup_of(pid)]
    shims = [
        pid for pid in living() if b"containerd-shim" in b"".join(processes.command_line(pid)[:1])
    ]
    assert len(containers) >= 2
    for pid in (own.pid("etcd"), own.pid("containerd"), own.pid("kubelet"), *shims):
        os.kill(pid, signal.SIGKILL)
    state = own.layout.state
    assert command("down", "--state-dir", str(state)).returncode == 0
    assert leftovers(state) == []
    assert not [link for link in own.links if Path(f"/sys/class/net/{link}").exists()]
    assert not [pid for pid in containers if pid in living()]
    again = command("down", "--state-dir", str(state))
    assert again.returncode == 0
    assert "there is no cluster" in again.stderr


def eventually(true: Callable[[], bool]) -> bool:
    """Whether it becomes true within a minute; an unanswered question counts as no."""

    def tried() -> bool:
        try:
            return true()
        except OSError:
            return False

    return processes.wait_until(tried, 60)
