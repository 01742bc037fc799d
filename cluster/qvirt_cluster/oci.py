"""A small OCI image from a few files, without a base image: an image layout as a tar archive. Pure.

For the pause image and for tests; the images of qvirt itself come from the room images/.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Final

#: What Debian's uname calls the machine -> what Go and OCI call it.
_ARCHITECTURE: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_KIND: Final = "application/vnd.oci.image"


def oci_archive(
    files: Mapping[str, bytes | str], command: tuple[str, ...], name: str, machine: str
) -> bytes:
    """:param files: path without a leading slash -> the file's bytes (mode 0755), or a symbolic link's target.
    :param command: the image's entry point.
    :param name: full name with tag, under which containerd imports it.
    :param machine: as uname tells it.
    """
    layer = _tar(files)
    blobs: dict[str, bytes] = {}
    config = {
        "architecture": _ARCHITECTURE.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": list(command), "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [_sha256(layer)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_KIND}.manifest.v1+json",
        "config": _blob(blobs, f"{_KIND}.config.v1+json", json.dumps(config).encode()),
        "layers": [_blob(blobs, f"{_KIND}.layer.v1.tar", layer)],
    }
    entry = _blob(blobs, f"{_KIND}.manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"io.containerd.image.name": name}
    index = {"schemaVersion": 2, "manifests": [entry]}
    layout = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
    }
    return _tar({**layout, **blobs})


def _blob(blobs: dict[str, bytes], media_type: str, data: bytes) -> dict[str, object]:
    """Add a blob; gives its descriptor."""
    digest = _sha256(data)
    blobs[f"blobs/{digest.replace(':', '/')}"] = data
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _tar(files: Mapping[str, bytes | str]) -> bytes:
    """No times and owners but root: equal contents give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
