"""A container image of several layers, each made of a tree, as an oci-archive. Equal trees give equal bytes.

Source: OCI image-spec v1.0 (layer, config, manifest).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import stat
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qvirt_images.oci import CREATED, descriptor, index, info, json_bytes
from qvirt_images.tree import Node, Tree

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Layer:
    """A part of an image; `title` says in a few words what it is."""

    title: str
    tree: Tree


@dataclass(frozen=True)
class Program:
    """What runs in the image when nothing else is said."""

    entrypoint: Sequence[str]
    user: str
    environment: Mapping[str, str] = field(default_factory=dict)


def pack(layers: Sequence[Layer], archive: Path, *, name: str, program: Program) -> list[int]:
    """Write an oci-archive, and return the compressed size of each layer."""
    plain = [_tar(layer.tree) for layer in layers]
    blobs = [gzip.compress(data, 9, mtime=0) for data in plain]
    config = _config(layers, plain, program)
    manifest = json_bytes(
        {
            "config": descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [descriptor(_LAYER, blob) for blob in blobs],
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "schemaVersion": 2,
        }
    )
    documents = {
        "oci-layout": json_bytes({"imageLayoutVersion": "1.0.0"}),
        "index.json": index(manifest, name, "amd64"),
    }
    for blob in (config, manifest, *blobs):
        documents[f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}"] = blob
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as out:
        for path, document in documents.items():
            out.addfile(info(path, len(document)), io.BytesIO(document))
    return [len(blob) for blob in blobs]


def _config(layers: Sequence[Layer], plain: Sequence[bytes], program: Program) -> bytes:
    environment = {"PATH": "/usr/bin:/usr/sbin", **program.environment}
    return json_bytes(
        {
            "architecture": "amd64",
            "config": {
                "Entrypoint": list(program.entrypoint),
                "Env": [f"{key}={value}" for key, value in sorted(environment.items())],
                "User": program.user,
                "WorkingDir": "/",
            },
            "created": CREATED,
            "history": [
                {"created": CREATED, "created_by": "qvirt images/build.py", "comment": layer.title}
                for layer in layers
            ],
            "os": "linux",
            "rootfs": {
                "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in plain],
                "type": "layers",
            },
        }
    )


def _tar(tree: Tree) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, node in sorted(tree.nodes.items()):
            archive.addfile(_member(path, node), io.BytesIO(node.data))
    return out.getvalue()


def _member(path: str, node: Node) -> tarfile.TarInfo:
    member = info(path, 0, mode=stat.S_IMODE(node.mode))
    if stat.S_ISDIR(node.mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(node.mode):
        member.type, member.linkname = tarfile.SYMTYPE, node.data.decode()
    else:
        member.size = len(node.data)
    return member
