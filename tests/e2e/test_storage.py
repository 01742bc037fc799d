"""What survives a restart and what does not: claims as files and as block devices, ephemeral layers over a claim, scratch disks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Cluster, Object
from tests.e2e.guests import Guest, machine

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(900)]

#: What a 64 MiB guest can hold as a file system is more than enough.
_SIZE = 64 << 20


class Disks:
    """Volumes of this node, bound to claims beforehand (there is no provisioner here)."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._made: list[str] = []
        self._loops: list[str] = []

    def filesystem(self, name: str) -> None:
        """A claim whose folder belongs to root; the kubelet gives it the pod's group."""
        path = self._folder / name
        path.mkdir()
        self._bind(name, str(path), "Filesystem")

    def block(self, name: str) -> None:
        """A claim of a block device."""
        path = self._folder / f"{name}.img"
        with path.open("wb") as file:
            os.truncate(file.fileno(), _SIZE)
        attach = ["losetup", "--find", "--show", str(path)]
        device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
        self._loops.append(device)
        self._bind(name, device, "Block")

    def _bind(self, name: str, path: str, mode: str) -> None:
        whole = f"{self._cluster.namespace}-{name}"
        node = self._cluster.items("nodes")[0]["metadata"]["name"]
        key = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        shared: Object = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "volumeMode": mode,
        }
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": whole},
            "spec": {
                **shared,
                "capacity": {"storage": str(_SIZE)},
                "persistentVolumeReclaimPolicy": "Retain",
                "local": {"path": path},
                "claimRef": {"namespace": self._cluster.namespace, "name": name},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [key]}]}},
            },
        }
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {
                **shared,
                "resources": {"requests": {"storage": str(_SIZE)}},
                "volumeName": whole,
            },
        }
        self._made.append(whole)
        self._cluster.apply(volume, claim)

    def close(self) -> None:
        """Who uses them ends before they do. The claims go with the namespace; what is not in it goes here."""
        self._cluster.kubectl("delete", "vm", "--all", "--timeout=150s", deadline=170)
        self._cluster.until("no pod is left", lambda: not self._cluster.items("pods"))
        for name in self._made:
            self._cluster.kubectl("delete", "pv", name, "--wait=false", "--ignore-not-found")

    def detach(self) -> None:
        """After the namespace is gone."""
        for device in self._loops:
            subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def folder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, list[Callable[[], None]]]]:
    """Removed when the namespace is; the kubelet must be able to reach it."""
    path = tmp_path_factory.mktemp("volumes")
    path.chmod(0o755)
    at_end: list[Callable[[], None]] = []
    yield path, at_end
    for clean in at_end:
        clean()
    shutil.rmtree(path)


@pytest.fixture
def disks(folder: tuple[Path, list[Callable[[], None]]], cluster: Cluster) -> Iterator[Disks]:
    """See Disks."""
    path, at_end = folder
    made = Disks(cluster, path)
    at_end.append(made.detach)
    yield made
    made.close()


def _restart(cluster: Cluster, name: str) -> Guest:
    cluster.patch("vm", name, runStrategy="Halted")
    cluster.until("it is down", lambda: not cluster.get("vmi", name) and not cluster.pods(name))
    cluster.patch("vm", name, runStrategy="Always")
    return cluster.running(name)


def _claim(name: str, **more: Any) -> Object:
    return {"persistentVolumeClaim": {"claimName": name, **more}}


def test_data_of_claims_survive_and_layers_do_not(cluster: Cluster, disks: Disks) -> None:
    """A missing `disk.img` is made as large as the claim; vdc.. in the order of the spec."""
    disks.filesystem("file")
    disks.block("block")
    disks.filesystem("base")
    volumes: dict[str, Object] = {
        "file": _claim("file"),
        "block": _claim("block"),
        "scratch": {"emptyDisk": {"capacity": "32Mi"}},
    }
    cluster.apply(machine("vm", disks=volumes))
    guest = cluster.running("vm")
    sizes = guest.run("cat /sys/block/vdc/size /sys/block/vdd/size /sys/block/vde/size").split()
    # A file gives up to a tenth to the file system below it (KubeVirt's reserve is 5.5 %); a device nothing.
    assert 0.9 * _SIZE <= int(sizes[0]) * 512 <= _SIZE
    assert int(sizes[1]) * 512 == _SIZE
    assert int(sizes[2]) * 512 == 32 << 20
    for device in "cde":
        guest.run(f"printf 'kept by vd{device}' | dd of=/dev/vd{device} bs=512 conv=sync; sync")

    guest = _restart(cluster, "vm")
    for device, kept in (("c", True), ("d", True), ("e", False)):
        text = guest.run(f"dd if=/dev/vd{device} bs=11 count=1 2>/dev/null")
        assert (text == f"kept by vd{device}") is kept, device


def test_an_ephemeral_layer_over_a_claim(cluster: Cluster, disks: Disks) -> None:
    """The claim gives the content, what the guest writes is dropped at its end, and the claim never changes."""
    disks.filesystem("base")
    cluster.apply(machine("writer", disks={"data": _claim("base")}))
    guest = cluster.running("writer")
    guest.run("printf original | dd of=/dev/vdc bs=512 conv=sync; sync")
    cluster.patch("vm", "writer", runStrategy="Halted")
    cluster.until("the writer is gone", lambda: not cluster.items("pods"))

    layer = {"ephemeral": {"persistentVolumeClaim": {"claimName": "base", "readOnly": True}}}
    cluster.apply(machine("vm", disks={"data": layer}))
    for _ in range(2):
        guest = cluster.running("vm")
        assert guest.run("dd if=/dev/vdc bs=8 count=1 2>/dev/null") == "original"
        guest.run("printf changed! | dd of=/dev/vdc bs=512 conv=sync; sync")
        assert guest.run("dd if=/dev/vdc bs=8 count=1 2>/dev/null") == "changed!"
        cluster.patch("vm", "vm", runStrategy="Halted")
        cluster.until("it is down", lambda: not cluster.pods("vm"))
        cluster.patch("vm", "vm", runStrategy="Always")
