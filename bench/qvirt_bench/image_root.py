"""The launcher's image, unpacked to be run with no container runtime: what is measured is what a pod runs.

Needs root, as the image's files are root's.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from qvirt_bench.errors import BenchError

ROOT: Final = Path(__file__).resolve().parents[2]
_IMAGES: Final = ROOT / "build" / "images"
_UNPACKED: Final = ROOT / "build" / "bench"
#: Where a pod's parts are mounted.
MOUNTS: Final = ("run/qvirt", "disks", "qvirt-holder")


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of an image; ``packed`` bytes travel over the network."""

    title: str
    packed: int
    plain: int


def archive_of(name: str) -> Path:
    """The oci-archive of one of our images.

    :raise BenchError: it was not built.
    """
    archive = _IMAGES / f"{name}.oci.tar"
    if not archive.exists():
        raise BenchError(f"{archive} is not there: build it with `make images`")
    return archive


def layers_of(archive: Path) -> tuple[Layer, ...]:
    """The layers as a registry would hold them."""
    with tarfile.open(archive) as opened:
        manifest = _manifest(opened)
        config = json.loads(_blob(opened, manifest["config"]))
        return tuple(
            Layer(
                title=step.get("comment", ""),
                packed=layer["size"],
                plain=len(_plain(_blob(opened, layer))),
            )
            for layer, step in zip(manifest["layers"], config["history"], strict=True)
        )


def unpack(archive: Path) -> Path:
    """A directory with the image's files; made once for each content.

    :raise BenchError: no root.
    """
    if os.geteuid() != 0:
        raise BenchError(
            "the launcher's image is unpacked and entered with chroot: run this as root"
        )
    with tarfile.open(archive) as opened:
        digest = json.loads(_member(opened, "index.json"))["manifests"][0]["digest"]
        directory = _UNPACKED / f"{archive.name.split('.')[0]}-{digest.partition(':')[2][:16]}"
        if directory.exists():
            return directory
        _forget_others(archive)
        partial = directory.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for layer in _manifest(opened)["layers"]:
            with tarfile.open(fileobj=io.BytesIO(_plain(_blob(opened, layer)))) as files:
                files.extractall(partial, filter="fully_trusted")
    for name in MOUNTS:
        (partial / name).mkdir(exist_ok=True)
    partial.rename(directory)
    return directory


def _forget_others(archive: Path) -> None:
    for old in _UNPACKED.glob(f"{archive.name.split('.')[0]}-*"):
        shutil.rmtree(old)


def _manifest(opened: tarfile.TarFile) -> Any:
    index = json.loads(_member(opened, "index.json"))
    return json.loads(_blob(opened, index["manifests"][0]))


def _blob(opened: tarfile.TarFile, descriptor: Mapping[str, object]) -> bytes:
    return _member(opened, f"blobs/sha256/{str(descriptor['digest']).partition(':')[2]}")


def _member(opened: tarfile.TarFile, path: str) -> bytes:
    stream = opened.extractfile(path)
    assert stream is not None, path
    return stream.read()


def _plain(blob: bytes) -> bytes:
    return gzip.decompress(blob) if blob.startswith(b"\x1f\x8b") else blob
