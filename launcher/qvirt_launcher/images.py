"""From the image names of a manifest to files on this machine: mapped by ``--image``, or pulled; cached by digest.

A disk out of a container image lies in the cache as one file, never written to (guests write to an overlay). Its format is
read off its first bytes, which is safe just because of that.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from qvirt_launcher.backing import Format
from qvirt_launcher.diskformat import image_format
from qvirt_launcher.errors import ImageError, UsageError
from qvirt_launcher.layers import extract
from qvirt_launcher.oci import ContainerImage, Kind, archive_kind, open_image
from qvirt_launcher.registry import Policy, Registry, default_policy

#: Bytes between two reports of progress.
_STEP: Final = 256 * 1024 * 1024
_ARCHIVES: Final[Mapping[str, Kind]] = {
    "oci-archive": "oci-archive",
    "oci": "oci",
    "docker-archive": "docker-archive",
}

Notify = Callable[[str], None]


class DiskFile(msgspec.Struct, frozen=True, tag="file"):
    """A raw or qcow2 image, used where it lies."""

    path: Path


class Archive(msgspec.Struct, frozen=True, tag="archive"):
    """A container image on this machine."""

    kind: Kind
    path: Path
    reference: str = ""


class Remote(msgspec.Struct, frozen=True, tag="remote"):
    """A container image in a registry."""

    reference: str
    policy: Policy


Source = DiskFile | Archive | Remote


class Found(msgspec.Struct, frozen=True):
    """A file to start from. ``cached``: it was there already."""

    path: Path
    format: Format
    cached: bool


def parse_mapping(text: str) -> tuple[str, str]:
    """``NAME=SOURCE`` of ``--image``.

    :raise UsageError: no ``=``, or nothing on one side of it.
    """
    name, _, source = text.partition("=")
    if not name or not source:
        raise UsageError(f"--image {text}: write it as NAME=SOURCE, NAME as in the manifest")
    return name, source


def parse_source(text: str) -> Source:
    """What ``--image NAME=`` was given: ``docker://``, ``oci-archive:``, ``oci:``, ``docker-archive:`` or a path.

    :raise ImageError: a path where nothing is, or something that is no image.
    """
    if text.startswith("docker://"):
        reference = text.removeprefix("docker://")
        return Remote(reference, default_policy(reference))
    scheme, colon, rest = text.partition(":")
    if colon and scheme in _ARCHIVES:
        path, reference = _split_reference(rest)
        return Archive(_ARCHIVES[scheme], path, reference)
    path = Path(text)
    if not path.exists():
        raise ImageError(f"{text}: does not exist; check the path given to --image")
    if path.is_dir():
        if (path / "oci-layout").exists():
            return Archive("oci", path)
        raise ImageError(f"{text}: is a directory but not an OCI layout; name a file in it")
    try:
        kind = archive_kind(path)
    except OSError as error:
        raise ImageError(f"{text}: {error.strerror}; check its permissions") from error
    return DiskFile(path) if kind is None else Archive(kind, path)


def _split_reference(text: str) -> tuple[Path, str]:
    """``PATH[:REFERENCE]``; the path may have colons in it if it exists as it is."""
    if Path(text).exists():
        return Path(text), ""
    path, _, reference = text.partition(":")
    return Path(path), reference


class ImageStore:
    """Finds the files of images, in a cache directory that any number of processes may share."""

    def __init__(self, cache: Path, registry: Registry, notify: Notify) -> None:
        self._folder = cache / "images"
        self._registry = registry
        self._notify = notify

    def disk(self, name: str, source: Source, path: str) -> Found:
        """The disk of a containerDisk. ``path`` inside the image; empty: the only file of ``/disk``.

        :raise ImageError: it can't be had, or is not a disk; the message starts with the image's name.
        """
        try:
            if isinstance(source, DiskFile):
                return Found(source.path.resolve(), image_format(source.path), cached=True)
            file, cached = self._file(source, path)
            return Found(file, image_format(file), cached)
        except ImageError as error:
            raise _named(name, error) from error

    def file(self, name: str, source: Source, path: str) -> Path:
        """Any file of a container image (a kernel, an initrd).

        :raise ImageError: as for `disk`; also if the source is no container image.
        """
        try:
            if isinstance(source, DiskFile):
                raise ImageError(f"{source.path}: is not a container image; kernels are in one")
            return self._file(source, path)[0]
        except ImageError as error:
            raise _named(name, error) from error

    def _file(self, source: Archive | Remote, path: str) -> tuple[Path, bool]:
        if isinstance(source, Remote):
            return self._pulled(source, path)
        with open_image(source.kind, source.path, source.reference) as image:
            return self._extracted(image, path)

    def _extracted(self, image: ContainerImage, path: str) -> tuple[Path, bool]:
        target = self._place(image.digest, path)
        if target.exists():
            return target, True
        with self._locked(target.stem):
            if target.exists():
                return target, True
            with self._fresh() as folder:
                part = folder / "disk"
                inner = extract(image, path, part, self._progress())
                self._notify(f"took /{inner} out of the image: {_size(part)}")
                part.chmod(0o644)
                part.rename(target)
        return target, False

    def _pulled(self, source: Remote, path: str) -> tuple[Path, bool]:
        name = hashlib.sha256(source.reference.encode()).hexdigest()
        note = self._folder / f"{name}.pulled"
        with self._locked(name):
            known = _read_note(note)
            target = self._place(known.image, path) if known else None
            have = known is not None and target is not None and target.exists()
            if source.policy == "Never" and not have:
                raise ImageError(
                    "imagePullPolicy is Never and it is not in the cache; pull it once, or map it with --image"
                )
            if have and target is not None and source.policy != "Always":
                return target, True
            remote = self._registry.digest(source.reference)
            if have and target is not None and known is not None and known.remote == remote:
                return target, True
            return self._pull(source.reference, remote, note, path), False

    def _pull(self, reference: str, remote: str, note: Path, path: str) -> Path:
        self._notify(f"pulling {reference}")
        with self._fresh() as folder:
            self._registry.pull(reference, folder / "layout")
            with open_image("oci", folder / "layout") as image:
                target, _ = self._extracted(image, path)
            part = folder / "note"
            part.write_bytes(msgspec.json.encode(_Pulled(remote, image.digest)))
            part.rename(note)
        return target

    def _place(self, digest: str, path: str) -> Path:
        key = hashlib.sha256(f"{digest}\0{path}".encode()).hexdigest()
        return self._folder / f"{key}.img"

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """One process at a time takes an image apart; the others then find it done."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / f"{name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise ImageError(
                f"cache {self._folder}: {error.strerror}; make it writable or choose another with --cache-dir"
            ) from error

    @contextmanager
    def _fresh(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="part-") as folder:
            yield Path(folder)

    def _progress(self) -> Callable[[int], None]:
        told = 0

        def tell(written: int) -> None:
            nonlocal told
            if written - told >= _STEP:
                told = written
                self._notify(f"taking the disk out of the image: {written >> 20} MiB so far")

        return tell


class _Pulled(msgspec.Struct, frozen=True):
    """What a reference meant when it was last pulled: the registry's digest, and that of the copy for this platform."""

    remote: str
    image: str


def _read_note(note: Path) -> _Pulled | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=_Pulled)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _named(name: str, error: ImageError) -> ImageError:
    text = str(error)
    return error if name in text else ImageError(f"image {name}: {text}")


def _size(path: Path) -> str:
    return f"{os.stat(path).st_size / (1 << 20):.0f} MiB"
