"""Container images on disk: OCI layouts and archives, and docker-save archives, read without any container runtime.

Facts: OCI image-spec 1.1 (image-layout, index, manifest) and the docker-save format. What lies in the layers is
`layers`; where images come from, and which one a manifest means, is `images`.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol, TypeVar, cast

import msgspec

from qvirt_launcher.errors import ImageError

#: Indexes, manifests and configs are small; what is bigger is not one.
_MAX_JSON: Final = 4 * 1024 * 1024
#: An index may point to an index; deeper nesting is a loop or a joke.
_MAX_DEPTH: Final = 4
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_INDEX_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
_TAG: Final = "org.opencontainers.image.ref.name"

Kind = Literal["oci-archive", "oci", "docker-archive"]
_T = TypeVar("_T")


class Files(Protocol):
    """Where the parts of an image lie: a directory, or a tar file with the same names."""

    def open(self, name: str) -> BinaryIO:
        """One part, from its beginning.

        :raise KeyError: there is none of that name.
        """


class Layer(msgspec.Struct, frozen=True):
    """One layer's blob. ``digest`` is of the blob as it lies there, ``diff_id`` of the tar inside; either may be unknown."""

    files: Files
    name: str
    digest: str = ""
    diff_id: str = ""

    def open(self) -> BinaryIO:
        return self.files.open(self.name)


class ContainerImage(msgspec.Struct, frozen=True):
    """An image for this platform: its digest (that of its manifest, or of its config) and its layers, lowest first."""

    digest: str
    layers: tuple[Layer, ...]


class _Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    digest: str
    media_type: str = ""
    annotations: dict[str, str] | None = None
    platform: _Platform | None = None


class _Index(msgspec.Struct, frozen=True):
    manifests: tuple[_Descriptor, ...]


class _Manifest(msgspec.Struct, frozen=True):
    config: _Descriptor
    layers: tuple[_Descriptor, ...]


class _DockerEntry(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: tuple[str, ...]
    repo_tags: tuple[str, ...] | None = None


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: tuple[str, ...] = ()


class _Config(msgspec.Struct, frozen=True):
    rootfs: _RootFs = _RootFs()


class _Directory(msgspec.Struct, frozen=True):
    path: Path

    def open(self, name: str) -> BinaryIO:
        try:
            return (self.path / name).open("rb")
        except FileNotFoundError:
            raise KeyError(name) from None


class _Archive:
    """The members of an uncompressed tar, by name; symbolic links (older docker-save) are followed inside it."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members = {member.name.removeprefix("./"): member for member in tar}

    def open(self, name: str) -> BinaryIO:
        part = self._tar.extractfile(self._members[name])
        if part is None:
            raise KeyError(name)
        return cast("BinaryIO", part)


@contextmanager
def open_image(kind: Kind, path: Path, reference: str = "") -> Iterator[ContainerImage]:
    """The image at ``path``; ``reference`` is a tag (or repo:tag), needed only if there are several images.

    :raise ImageError: nothing there, not an image, several images, none for linux/amd64, or damaged.
    """
    try:
        if kind == "oci":
            yield _read_layout(_Directory(path), path, reference)
            return
        with tarfile.open(path, "r:") as tar:
            files = _Archive(tar)
            read = _read_layout if kind == "oci-archive" else _read_docker
            yield read(files, path, reference)
    except tarfile.TarError as error:
        raise ImageError(
            f"{path}: is not an uncompressed tar archive ({error}); make one with `skopeo copy ... {kind}:FILE`"
        ) from error
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}; check the path given to --image") from error


def archive_kind(path: Path) -> Kind | None:
    """Which sort of image archive a file is, by the members of the tar that it is; None if it is neither.

    :raise OSError: the file can't be read.
    """
    with path.open("rb") as file:
        if file.read(262)[257:262] != b"ustar":
            return None
    try:
        with tarfile.open(path, "r:") as tar:
            names = {member.name.removeprefix("./") for member in tar}
    except tarfile.TarError:
        return None
    if "oci-layout" in names:
        return "oci-archive"
    return "docker-archive" if "manifest.json" in names else None


def _read_layout(files: Files, path: Path, tag: str) -> ContainerImage:
    index = _decode(_read(files, "index.json", path), _Index, path)
    descriptor = _descend(files, path, _choose(index.manifests, tag, path))
    manifest = _decode(_read_blob(files, descriptor.digest, path), _Manifest, path)
    config = _decode(_read_blob(files, manifest.config.digest, path), _Config, path)
    diff_ids = _padded(config.rootfs.diff_ids, len(manifest.layers))
    return ContainerImage(
        digest=descriptor.digest,
        layers=tuple(
            Layer(files, _blob_name(layer.digest, path), layer.digest, diff_id)
            for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
        ),
    )


def _descend(files: Files, path: Path, descriptor: _Descriptor) -> _Descriptor:
    for _ in range(_MAX_DEPTH):
        if descriptor.media_type not in _INDEX_TYPES:
            return descriptor
        index = _decode(_read_blob(files, descriptor.digest, path), _Index, path)
        descriptor = _choose(index.manifests, "", path)
    raise ImageError(f"{path}: its indexes are nested too deeply; copy the image anew with skopeo")


def _choose(found: Sequence[_Descriptor], tag: str, path: Path) -> _Descriptor:
    if not found:
        raise ImageError(f"{path}: holds no image; write one into it, e.g. with skopeo copy")
    tags = sorted({(d.annotations or {}).get(_TAG, "") for d in found} - {""})
    if tag:
        found = [d for d in found if (d.annotations or {}).get(_TAG) == tag]
        if not found:
            raise ImageError(f"{path}: has no image tagged {tag!r}; it has {_listed(tags)}")
    fitting = [d for d in found if _fits(d.platform)]
    if not fitting:
        raise ImageError(f"{path}: has no image for linux/amd64; build or copy that one")
    if len(fitting) > 1:
        raise ImageError(f"{path}: holds several images; say which as PATH:TAG: {_listed(tags)}")
    return fitting[0]


def _fits(platform: _Platform | None) -> bool:
    return platform is None or (platform.os, platform.architecture) in {
        ("linux", "amd64"),
        ("", ""),
    }


def _read_docker(files: Files, path: Path, reference: str) -> ContainerImage:
    entries = _decode(_read(files, "manifest.json", path), tuple[_DockerEntry, ...], path)
    if reference:
        entries = tuple(e for e in entries if reference in (e.repo_tags or ()))
    if len(entries) != 1:
        raise ImageError(
            f"{path}: {len(entries)} images match; name one as docker-archive:PATH:REPO:TAG"
        )
    entry = entries[0]
    raw = _read(files, entry.config, path)
    diff_ids = _padded(_decode(raw, _Config, path).rootfs.diff_ids, len(entry.layers))
    return ContainerImage(
        digest=f"sha256:{hashlib.sha256(raw).hexdigest()}",
        layers=tuple(
            Layer(files, name, "", diff_id)
            for name, diff_id in zip(entry.layers, diff_ids, strict=True)
        ),
    )


def _padded(diff_ids: Sequence[str], count: int) -> Sequence[str]:
    """Configs of artifacts list no layers: then nothing is known of their insides."""
    return diff_ids if len(diff_ids) == count else ("",) * count


def _blob_name(digest: str, path: Path) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ImageError(f"{path}: {digest!r} is not a sha256 digest; copy the image anew")
    return "blobs/" + digest.replace(":", "/")


def _read_blob(files: Files, digest: str, path: Path) -> bytes:
    content = _read(files, _blob_name(digest, path), path)
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise ImageError(f"{path}: {digest} has other content than its digest says; it is damaged")
    return content


def _read(files: Files, name: str, path: Path) -> bytes:
    try:
        with files.open(name) as part:
            content = part.read(_MAX_JSON + 1)
    except KeyError:
        raise ImageError(f"{path}: has no {name}; it is not a container image") from None
    if len(content) > _MAX_JSON:
        raise ImageError(f"{path}: {name} is over 4 MiB; it is not what an image has there")
    return content


def _decode(content: bytes, kind: type[_T], path: Path) -> _T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise ImageError(f"{path}: is not a container image: {error}") from error


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "no tags"
