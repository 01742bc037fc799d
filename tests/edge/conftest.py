"""One pod, written once by `qvirt pod` from the seed's manifest, for a kubelet and for podman; and nodes of both kinds."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
LAUNCHER: Final = ROOT / "build/images/launcher.oci.tar"
DEMO: Final = ROOT / "build/guest/demo-guest.oci.tar"
DEMO_NAME: Final = "localhost/demo-guest:latest"
SEED: Final = ROOT / "examples/seed-vm.yaml"
SEED_IMAGE: Final = "kubevirt/cirros-registry-disk-demo:devel"
HTTP: Final = 8080
_QVIRT: Final = (sys.executable, "-P", "-m", "qvirt_launcher.cli.main")
_NODE: Final = (sys.executable, str(ROOT / "cluster/cluster.py"))


def run(*argv: str | Path, text: str = "", deadline: float = 120) -> str:
    """What a program prints.

    :raise AssertionError: it failed, with what it said.
    """
    done = subprocess.run(
        [str(word) for word in argv], input=text, capture_output=True, text=True, timeout=deadline
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def qvirt_pod(manifest: Path | str, *options: str) -> str:
    """What `qvirt pod` writes; the manifest's text may be given instead of its file."""
    file = str(manifest) if isinstance(manifest, Path) else "-"
    return run(*_QVIRT, "pod", file, *options, text="" if file != "-" else str(manifest))


def until(what: str, holds: Callable[[], bool], picture: Callable[[], str], seconds: float) -> None:
    """:raise AssertionError: not in time; the message has the picture."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s\n{picture()}"
        time.sleep(0.5)


def hostname(address: str, port: int) -> str:
    """What the demo guest behind a port says it is called; empty: it doesn't answer."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/hostname")
        return connection.getresponse().read().decode().strip()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


class Node:
    """A machine of its own as far as network, mounts and processes go.

    :param enter: what a command begins with that is run there.
    :param address: where its ports are reached from here.
    """

    def __init__(self, enter: tuple[str, ...], address: str) -> None:
        self.enter = enter
        self.address = address

    def run(self, *argv: str | Path, text: str = "", deadline: float = 120) -> str:
        """A command there."""
        return run(*self.enter, *argv, text=text, deadline=deadline)

    def said(self, *argv: str | Path, text: str = "", deadline: float = 120) -> str:
        """The same; failing is as good, and what it says of that counts."""
        done = subprocess.run(
            [*self.enter, *map(str, argv)],
            input=text,
            capture_output=True,
            text=True,
            timeout=deadline,
        )
        return done.stdout + done.stderr


class KubeletNode(Node):
    """With containerd and a kubelet that has no control plane."""

    def __init__(self, enter: tuple[str, ...], address: str, manifests: Path, socket: str) -> None:
        super().__init__(enter, address)
        self.manifests = manifests
        self.ctr = ("ctr", f"--address={socket}", "--namespace=k8s.io")

    def tasks(self) -> list[str]:
        """Containers that run."""
        return self.run(*self.ctr, "tasks", "ls", "-q").split()

    def compute(self) -> str:
        """virt-launcher's container."""
        wanted = 'labels."io.kubernetes.container.name"==compute'
        return self.run(*self.ctr, "containers", "ls", "-q", wanted).strip()

    def log(self, container: str) -> str:
        """What a container of any pod has said."""
        files = sorted((self.manifests.parent / "var-log/pods").glob(f"*/{container}/*.log"))
        return "\n".join(file.read_text(errors="replace") for file in files)

    def picture(self) -> str:
        """For a test that fails."""
        names = ("container-disk-holder", "compute", "volumeregistryvolume", "guest-console-log")
        logs = "\n".join(f"{name}: {self.log(name)[-2000:]}" for name in names)
        kubelet = (self.manifests.parent / "logs/kubelet.log").read_text(errors="replace")
        telling = [line for line in kubelet.splitlines() if "pod" in line and "quota" not in line]
        return "\n".join([logs, "kubelet:", *(line[:400] for line in telling[-40:])])


@pytest.fixture(scope="session")
def seed_pod(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that a kubelet and podman run alike."""
    file = tmp_path_factory.mktemp("edge") / "myvm.yaml"
    image = f"{SEED_IMAGE}={DEMO_NAME}"
    # A busy machine's guest takes longer than the seed's 5 s to go down in good order.
    patient = SEED.read_text().replace("GracePeriodSeconds: 5", "GracePeriodSeconds: 90")
    file.write_text(qvirt_pod(patient, "--publish", f"{HTTP}:80", "--image", image))
    return file


@pytest.fixture
def kubelet_node() -> Iterator[KubeletNode]:
    """`cluster.py node`, removed at the end."""
    state = Path(f"/var/lib/qvirt-edge-{os.getpid()}")
    try:
        told = dict(
            line.split("=", 1)
            for line in run(*_NODE, "node", "--state-dir", state, deadline=300).splitlines()
        )
        enter = tuple(told["ENTER"].split())
        yield KubeletNode(enter, told["NODE"], Path(told["MANIFESTS"]), told["CONTAINERD_ADDRESS"])
    finally:
        run(*_NODE, "node-down", "--state-dir", state, deadline=120)


class Podman(Node):
    """With podman, its storage and its network."""

    def __init__(self, enter: tuple[str, ...], folder: Path) -> None:
        super().__init__(enter, "127.0.0.1")
        self.folder = folder
        own = (f"--root={folder}/root", f"--runroot={folder}/runroot", f"--tmpdir={folder}/tmp")
        network = f"--network-config-dir={folder}/networks"
        configured = ("env", f"CONTAINERS_CONF={folder}/containers.conf")
        self.podman = (*configured, "podman", *own, network)

    def hostname(self, port: int) -> str:
        """Asked from inside: its network is its own."""
        said = self.said("curl", "-s", "--max-time", "5", f"http://127.0.0.1:{port}/hostname")
        return said.strip()

    def picture(self) -> str:
        """For a test that fails."""
        names = self.run(*self.podman, "ps", "--all", "--format={{.Names}}").split()
        logs = "\n".join(f"{n}: {self.said(*self.podman, 'logs', n)[-2000:]}" for n in names)
        return self.said(*self.podman, "ps", "--all") + logs


#: No systemd to make control groups, a machine whose root may have no CAP_SYS_RESOURCE to raise limits, no journal.
_CONTAINERS_CONF: Final = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
"""
#: What podman and its plugins keep outside of the folders that they are told.
_WIRED: Final = (
    "/run/containers",
    "/run/libpod",
    "/var/lib/cni",
    "/var/lib/containers",
    "/run/netns",
)


@pytest.fixture
def podman() -> Iterator[Podman]:
    """A machine with podman and both images. With its first process all of it ends."""
    if shutil.which("podman") is None:
        pytest.skip("needs podman (tests/edge/packages.txt)")
    folder = Path(f"/var/lib/qvirt-edge-podman-{os.getpid()}")
    folder.mkdir(mode=0o711)
    (folder / "containers.conf").write_text(_CONTAINERS_CONF)
    made = [Path(place) for place in _WIRED if not Path(place).exists()]
    mounts = "\n".join(f"mkdir -p {place}; mount -t tmpfs tmpfs {place}" for place in _WIRED)
    script = f"set -e\n{mounts}\nip link set lo up\ntouch {folder}/ready\nsleep infinity & wait"
    own = ("--mount", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
    first = subprocess.Popen(["unshare", *own, "sh", "-c", script], stdin=subprocess.DEVNULL)
    try:
        until("a machine for podman", (folder / "ready").exists, str, 30)
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        enter = ("nsenter", f"--target={children[0]}", "--mount", "--net", "--uts", "--pid")
        node = Podman(enter, folder)
        for archive in (LAUNCHER, DEMO):
            node.run(*node.podman, "load", "--quiet", "--input", archive)
        yield node
    finally:
        first.kill()
        first.wait()
        _remove(folder)
        for place in made:
            with contextlib.suppress(OSError):  # skopeo keeps a cache there, too
                place.rmdir()


def _remove(folder: Path) -> None:
    """Files, and the control groups that podman leaves behind."""
    groups = [
        g
        for top in Path("/sys/fs/cgroup").glob("**/libpod_parent")
        for g in (top, *top.rglob("*/"))
    ]

    def gone() -> bool:
        for group in sorted(groups, reverse=True):
            if group.exists():
                try:
                    group.rmdir()
                except OSError:
                    return False
        return True

    run("rm", "--recursive", "--force", "--one-file-system", folder)
    until("control groups are gone", gone, lambda: str(groups), 30)
