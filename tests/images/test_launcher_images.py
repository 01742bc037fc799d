"""The images that qvirt runs from, as they are built: equal bytes from equal packages, and a QEMU that starts in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.images.conftest import BUILD, ROOT

IMAGES = ROOT / "build" / "images"
LOADER = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
_SECONDS = 600


def stamped(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def build(name: str, output: Path) -> None:
    run = subprocess.run(
        [sys.executable, BUILD, name, "--output", output],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="session")
def microvm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the microvm flavour, which is built if it is not there yet."""
    build("launcher-microvm", IMAGES)
    root = tmp_path_factory.mktemp("microvm")
    with tarfile.open(IMAGES / "launcher-microvm.oci.tar") as archive:
        index = json.loads(_blob(archive, "index.json"))
        manifest = json.loads(_blob(archive, _path(index["manifests"][0]["digest"])))
        for layer in manifest["layers"]:
            with (
                _open(archive, _path(layer["digest"])) as packed,
                tarfile.open(fileobj=packed, mode="r:gz") as files,
            ):
                files.extractall(root, filter="tar")
    return root


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _open(archive: tarfile.TarFile, path: str) -> Any:
    stream = archive.extractfile(path)
    assert stream is not None
    return stream


def _blob(archive: tarfile.TarFile, path: str) -> bytes:
    content: bytes = _open(archive, path).read()
    return content


@pytest.mark.slow
@pytest.mark.timeout(2 * _SECONDS)
@pytest.mark.parametrize("name", ["launcher", "launcher-microvm", "operator"])
def test_two_builds_are_equal(name: str, tmp_path: Path) -> None:
    build(name, IMAGES)
    build(name, tmp_path)
    ours, theirs = stamped(tmp_path, name), stamped(IMAGES, name)
    if ours["packages"] != theirs["packages"]:
        pytest.skip("the Debian archive has changed between the two builds")
    assert ours["outputs"] == theirs["outputs"]


def qemu(root: Path, *arguments: str, script: list[dict[str, Any]]) -> tuple[list[Any], str]:
    """What the image's QEMU answers on QMP, and what it complains about; by the image's own libraries."""
    commands = [{"execute": "qmp_capabilities"}, *script, {"execute": "quit"}]
    run = subprocess.run(
        [
            *(root / LOADER, "--library-path", root / "usr/lib/x86_64-linux-gnu"),
            *(root / "usr/bin/qemu-system-x86_64", "-L", root / "usr/share/qemu"),
            *("-nodefaults", "-display", "none", "-qmp", "stdio", *arguments),
        ],
        input="\n".join(map(json.dumps, commands)).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    return [one["return"] for one in answers if "return" in one], run.stderr.decode()


@pytest.mark.qemu
@pytest.mark.timeout(2 * _SECONDS)
@pytest.mark.skipif(
    not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="needs a /dev/kvm that opens"
)
def test_the_microvm_flavour_makes_a_machine_by_kvm(microvm: Path) -> None:
    """As far as any KVM goes: the machine stands ready, and nothing of it runs yet."""
    asked: list[dict[str, Any]] = [{"execute": "query-status"}, {"execute": "query-kvm"}]
    (_, status, kvm, *_), said = qemu(microvm, "-machine", "microvm,accel=kvm", "-S", script=asked)
    assert status["status"] == "prelaunch", said
    assert kvm["enabled"] is True


@pytest.mark.qemu
@pytest.mark.timeout(2 * _SECONDS)
def test_the_microvm_flavour_emulates_nothing(microvm: Path) -> None:
    answers, said = qemu(microvm, "-machine", "microvm,accel=tcg", script=[])
    assert not answers
    assert "invalid accelerator tcg" in said
