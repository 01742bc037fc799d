"""What stands behind each disk, as data: decided by `disks` (pure), made by `prepare`, opened by `machine`'s QEMU."""

from __future__ import annotations

from typing import Literal

from qvirt_crds.model import Model

Format = Literal["raw", "qcow2"]


class Image(Model, frozen=True, kw_only=True):
    """An image file or block device that exists, with its true format (never probed by QEMU)."""

    path: str
    format: Format
    #: A block device (``host_device``) rather than a file.
    block: bool = False
    #: A file without holes: writing to it never makes the file system look for room. Observed by `prepare`.
    allocated: bool = False


class CreateOverlay(Model, frozen=True, kw_only=True, tag="overlay"):
    """A qcow2 at ``path`` over ``base``, to be thrown away with the VM."""

    path: str
    base: Image


class CreateEmpty(Model, frozen=True, kw_only=True, tag="empty"):
    """A fresh qcow2 of ``size`` bytes."""

    path: str
    size: int


class CreateSeed(Model, frozen=True, kw_only=True, tag="seed"):
    """An ISO 9660 image (Joliet + Rock Ridge) with these files. Values are base64."""

    path: str
    volume_id: str
    files: dict[str, str]


class CreateSeedFromDirectory(Model, frozen=True, kw_only=True, tag="seed-directory"):
    """As `CreateSeed`, with user data and network data, or ssh keys, read from directories of Secrets' keys."""

    path: str
    volume_id: str
    files: dict[str, str]
    directory: str = ""
    #: file in the ISO -> keys to try in the directory, in order; required if it names ``user-data``.
    keys: dict[str, tuple[str, ...]] = {}
    #: Directories of Secrets with ssh public keys, for the field of that name in the meta data (JSON), which is one of the files.
    public_keys: tuple[str, ...] = ()
    meta_data: str = ""
    public_keys_field: str = ""


class CopyFile(Model, frozen=True, kw_only=True, tag="copy"):
    """A private, writable copy of a small file (EFI variables), unless ``path`` is there already."""

    path: str
    source: str


Step = CreateOverlay | CreateEmpty | CreateSeed | CreateSeedFromDirectory | CopyFile


class Backing(Model, frozen=True, kw_only=True):
    """One volume as QEMU opens it."""

    volume: str
    #: The node that the guest's device is attached to.
    image: Image
    #: The read-only node below it (overlays); given to QEMU explicitly, so that no header decides what is opened.
    base: Image | None = None
    read_only: bool = False
    #: Whether image (and base) take O_DIRECT; unknown before the files exist, then set by `prepare`.
    direct: bool = False


class DiskPlan(Model, frozen=True, kw_only=True):
    """Steps to carry out, in order, and what then stands behind each volume."""

    steps: tuple[Step, ...] = ()
    backings: tuple[Backing, ...] = ()
