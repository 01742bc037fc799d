"""A disk as a containerDisk: an OCI image whose one layer has the disk under /disk, owner 107.

Written without any container tool, as an oci-archive (a tar of an OCI image layout) that skopeo,
podman and containerd read. The layer is an uncompressed tar: a qcow2 disk is compressed already,
and a reader can map the disk in place. Equal disks give equal archives.
Source: OCI image-spec v1.0 (image-layout, manifest, config, annotations).
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from qvirt_images.errors import BuildError
from qvirt_images.tools import EPOCH

# The user that launchers and container disks run as.
OWNER = 107
CREATED = datetime.datetime.fromtimestamp(EPOCH, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
_QCOW2_MAGIC = b"QFI\xfb"


def pack(disk: Path, archive: Path, *, name: str, title: str, architecture: str = "amd64") -> str:
    """Write `disk` as an oci-archive and return the digest of its manifest.

    `name` is the image's name with its tag, as in `demo-guest:latest`; it becomes the reference
    that importers use. The archive appears under its name only when it is whole.
    Raises BuildError if the disk is empty or no file.
    """
    if not disk.is_file() or disk.stat().st_size == 0:
        raise BuildError(f"{disk}: no disk image to pack; build it first")
    partial = archive.with_name(archive.name + ".partial")
    with tempfile.TemporaryFile(dir=archive.parent) as layer:
        size, digest = _layer(disk, layer)
        documents = _documents(digest, size, name, title, architecture)
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as out:
            for path, document in documents.items():
                out.addfile(info(path, len(document)), io.BytesIO(document))
            layer.seek(0)
            out.addfile(info(f"blobs/sha256/{digest}", size), layer)
    partial.replace(archive)
    return hashlib.sha256(_manifest(documents)).hexdigest()


def info(path: str, size: int, *, mode: int = 0o444, owner: int = 0) -> tarfile.TarInfo:
    """A tar entry with a fixed time."""
    info = tarfile.TarInfo(path)
    info.size, info.mode, info.mtime = size, mode, EPOCH
    info.uid = info.gid = owner
    return info


def _layer(disk: Path, out: io.BufferedRandom) -> tuple[int, str]:
    """Write the layer; its size and SHA-256, which is the blob's and the diff's in one."""
    with disk.open("rb") as source:
        suffix = "qcow2" if source.read(4) == _QCOW2_MAGIC else "img"
        source.seek(0)
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            directory = info("disk", 0, mode=0o555, owner=OWNER)
            directory.type = tarfile.DIRTYPE
            tar.addfile(directory)
            name = PurePosixPath("disk", f"{disk.stem}.{suffix}")
            tar.addfile(info(str(name), disk.stat().st_size, owner=OWNER), source)
    size = out.tell()
    out.seek(0)
    return size, hashlib.file_digest(out, "sha256").hexdigest()


def _documents(
    layer: str, layer_size: int, name: str, title: str, architecture: str
) -> dict[str, bytes]:
    """All files of the layout but the layer, in the order in which they are written."""
    config = json_bytes(
        {
            "architecture": architecture,
            "config": {"Labels": {"org.opencontainers.image.title": title}},
            "created": CREATED,
            "history": [{"created": CREATED, "created_by": "qvirt images/build.py"}],
            "os": "linux",
            "rootfs": {"diff_ids": [f"sha256:{layer}"], "type": "layers"},
        }
    )
    manifest = json_bytes(
        {
            "annotations": {"org.opencontainers.image.title": title},
            "config": descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [
                {
                    "digest": f"sha256:{layer}",
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "size": layer_size,
                }
            ],
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "schemaVersion": 2,
        }
    )
    return {
        "oci-layout": json_bytes({"imageLayoutVersion": "1.0.0"}),
        "index.json": index(manifest, name, architecture),
        f"blobs/sha256/{hashlib.sha256(config).hexdigest()}": config,
        f"blobs/sha256/{hashlib.sha256(manifest).hexdigest()}": manifest,
    }


def index(manifest: bytes, name: str, architecture: str) -> bytes:
    """The layout's entry document for one image; `name` as in `pack`."""
    # skopeo selects by ref.name, containerd names the imported image after its own annotation.
    annotations = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2] or "latest",
    }
    entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    platform = {"architecture": architecture, "os": "linux"}
    return json_bytes(
        {
            "manifests": [entry | {"annotations": annotations, "platform": platform}],
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "schemaVersion": 2,
        }
    )


def _manifest(documents: dict[str, bytes]) -> bytes:
    return list(documents.values())[-1]


def json_bytes(value: object) -> bytes:
    """Canonical JSON: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    """How a document of an image names a blob."""
    digest = hashlib.sha256(blob).hexdigest()
    return {"digest": f"sha256:{digest}", "mediaType": media_type, "size": len(blob)}
