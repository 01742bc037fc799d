"""The packer of containerDisks: reproducible, and read by a real container tool."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from qvirt_images import oci
from qvirt_images.errors import BuildError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    disk = tmp_path / "mine.raw"
    disk.write_bytes(b"\x55\xaa" * 5000)
    return disk


def _pack(disk: Path, archive: Path) -> str:
    return oci.pack(disk, archive, name="mine:v1", title="a disk")


def _blob(archive: tarfile.TarFile, digest: str) -> bytes:
    stream = archive.extractfile("blobs/" + digest.replace(":", "/"))
    assert stream is not None
    data = stream.read()
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
    return data


def test_equal_disks_give_equal_archives(raw: Path, tmp_path: Path) -> None:
    first = _pack(raw, tmp_path / "one.tar")
    os.utime(raw, (1, 1))
    raw.chmod(0o600)
    second = _pack(raw, tmp_path / "two.tar")
    assert first == second
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    raw.write_bytes(b"other")
    assert _pack(raw, tmp_path / "three.tar") != first


def test_the_layer_has_one_disk_for_user_107(raw: Path, tmp_path: Path) -> None:
    digest = _pack(raw, tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as archive:
        manifest: dict[str, Any] = json.loads(_blob(archive, f"sha256:{digest}"))
        config = json.loads(_blob(archive, manifest["config"]["digest"]))
        (layer,) = manifest["layers"]
        assert config["rootfs"]["diff_ids"] == [layer["digest"]]
        data = _blob(archive, layer["digest"])
    assert len(data) == layer["size"]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        assert [(m.name, m.isdir(), m.uid, m.gid) for m in members] == [
            ("disk", True, 107, 107),
            ("disk/mine.img", False, 107, 107),
        ]
        stream = tar.extractfile("disk/mine.img")
        assert stream is not None
        assert stream.read() == raw.read_bytes()


def test_a_qcow2_disk_is_named_so(tmp_path: Path) -> None:
    disk = tmp_path / "disk.bin"
    disk.write_bytes(b"QFI\xfb" + bytes(508))
    _pack(disk, tmp_path / "image.tar")
    assert b"disk/disk.qcow2" in (tmp_path / "image.tar").read_bytes()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_reads_and_copies_it(raw: Path, tmp_path: Path) -> None:
    digest = _pack(raw, tmp_path / "image.tar")
    source = f"oci-archive:{tmp_path / 'image.tar'}"
    inspected = subprocess.run(
        ["skopeo", "inspect", source], check=True, capture_output=True, text=True
    )
    facts = json.loads(inspected.stdout)
    assert facts["Digest"] == f"sha256:{digest}"
    assert (facts["Os"], facts["Architecture"]) == ("linux", "amd64")
    for reference in (source, f"{source}:v1"):
        target = tmp_path / f"copy-{len(reference)}"
        subprocess.run(
            [
                "skopeo",
                "--insecure-policy",
                "copy",
                "--preserve-digests",
                reference,
                f"oci:{target}:t",
            ],
            check=True,
            capture_output=True,
        )
        assert (target / "blobs" / "sha256" / digest).exists()


@pytest.mark.parametrize("contents", [None, b""])
def test_no_disk_is_an_error_and_leaves_nothing(contents: bytes | None, tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    if contents is not None:
        disk.write_bytes(contents)
    with pytest.raises(BuildError, match=r"disk\.qcow2: no disk image to pack"):
        _pack(disk, tmp_path / "image.tar")
    assert not list(tmp_path.glob("image.tar*"))
