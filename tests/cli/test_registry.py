"""Images from a real registry (Debian's docker-registry), by the real skopeo."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import SECTOR, Oci

from qvirt_launcher.errors import ImageError
from qvirt_launcher.images import ImageStore, Remote
from qvirt_launcher.registry import Policy, Registry, default_policy, registry_host

OTHER = b"other".ljust(512, b"-")


@pytest.mark.parametrize(
    ("reference", "policy"),
    [
        ("demo", "Always"),
        ("demo:latest", "Always"),
        ("localhost:5000/demo", "Always"),
        ("demo:v1", "IfNotPresent"),
        ("localhost:5000/demo:v1", "IfNotPresent"),
        ("demo@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_the_policy_of_an_image_that_names_none(reference: str, policy: Policy) -> None:
    assert default_policy(reference) == policy


def test_hosts() -> None:
    assert registry_host("kubevirt/demo:devel") == "docker.io"
    assert registry_host("localhost:5000/demo") == "localhost:5000"
    assert registry_host("localhost/demo") == "localhost"
    assert registry_host("registry.example/a/b") == "registry.example"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """``host:port`` of a registry of this test's own, without TLS."""
    if not shutil.which("docker-registry") or not shutil.which("skopeo"):
        pytest.skip("needs docker-registry and skopeo")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    path = tmp_path / "registry.json"
    path.write_text(json.dumps(config))
    process = subprocess.Popen(
        ["docker-registry", "serve", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await_port(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _await_port(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the registry doesn't start")


def push(oci: Oci, reference: str, content: bytes) -> None:
    archive = oci.archive(oci.image({"disk/a.img": content}))
    subprocess.run(
        [
            "skopeo",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            f"oci-archive:{archive}",
            f"docker://{reference}",
        ],
        check=True,
    )


def make_store(tmp_path: Path, host: str) -> tuple[ImageStore, list[str]]:
    notes: list[str] = []
    return ImageStore(tmp_path / "cache", Registry((host,)), notes.append), notes


def test_pull_policies(registry: str, oci: Oci, tmp_path: Path) -> None:
    """Never before, IfNotPresent once, Always as often as the tag has moved."""
    store, notes = make_store(tmp_path, registry)
    reference = f"{registry}/demo:v1"
    push(oci, reference, SECTOR)

    with pytest.raises(ImageError, match="imagePullPolicy is Never and it is not in the cache"):
        store.disk(reference, Remote(reference, "Never"), "")
    first = store.disk(reference, Remote(reference, "IfNotPresent"), "")
    assert (first.path.read_bytes(), first.cached) == (SECTOR, False)
    assert store.disk(reference, Remote(reference, "Always"), "").cached

    push(oci, reference, OTHER)
    assert store.disk(reference, Remote(reference, "Never"), "").path == first.path
    assert store.disk(reference, Remote(reference, "IfNotPresent"), "").path == first.path
    moved = store.disk(reference, Remote(reference, "Always"), "")
    assert (moved.path.read_bytes(), moved.cached) == (OTHER, False)
    assert [note for note in notes if note.startswith("pulling")] == [f"pulling {reference}"] * 2
    # What was pulled to take the disk out of it is gone.
    assert {p.suffix for p in (tmp_path / "cache/images").iterdir()} <= {".lock", ".img", ".pulled"}


def test_without_tls_only_where_that_was_said(registry: str, oci: Oci, tmp_path: Path) -> None:
    reference = f"{registry}/demo:v1"
    push(oci, reference, SECTOR)
    store = ImageStore(tmp_path / "cache", Registry(), print)
    with pytest.raises(ImageError, match=r"can't be pulled: .*; give it with --image .*=SOURCE"):
        store.disk(reference, Remote(reference, "Always"), "")


def test_an_image_that_is_not_there(registry: str, tmp_path: Path) -> None:
    store, _ = make_store(tmp_path, registry)
    reference = f"{registry}/nothing:v1"
    with pytest.raises(ImageError, match=f"image {reference}: can't be pulled: .*unknown"):
        store.disk(reference, Remote(reference, "IfNotPresent"), "")


def test_no_skopeo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    store, _ = make_store(tmp_path, "")
    with pytest.raises(
        ImageError, match=r"skopeo, which is not installed; apt install skopeo, or give it with"
    ):
        store.disk("demo:v1", Remote("demo:v1", "IfNotPresent"), "")


@pytest.mark.parametrize("name", ["-x", "a b", "", "a\nb", "--help"])
def test_names_that_are_no_images(name: str, tmp_path: Path) -> None:
    store, _ = make_store(tmp_path, "")
    with pytest.raises(ImageError):
        store.disk(name, Remote(name, "IfNotPresent"), "")
