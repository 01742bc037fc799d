"""Carries a `DiskPlan` out: looks whether images are what they were said to be, makes overlays, empty disks and seeds.

Runs in the worker, as the user that QEMU will run as. Formats are what the plan says, never found out from content that a
guest may have written.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import shutil
import stat
from typing import Final, assert_never

from msgspec.structs import replace

from qvirt_launcher import iso, qcow2, secretfiles
from qvirt_launcher.backing import (
    Backing,
    CopyFile,
    CreateEmpty,
    CreateOverlay,
    CreateSeed,
    CreateSeedFromDirectory,
    DiskPlan,
    Image,
    Step,
)
from qvirt_launcher.errors import HostError, PrepareError

#: A Secret holds at most 1 MiB in all (Kubernetes' limit).
_LONGEST_KEY: Final = 1 << 20
_SECTOR: Final = 4096


def carry_out(plan: DiskPlan) -> DiskPlan:
    """Make what the plan says and look at the result.

    :returns: the plan with what only the files can tell: whether they are block devices and take O_DIRECT.
    :raise PrepareError: an image is missing, unreadable or not what it says; a step failed. The message names the file.
    """
    made = {step.path for step in plan.steps}
    for backing in plan.backings:
        for image in (backing.image, backing.base):
            if image is not None and image.path not in made:
                _check(image, write=not backing.read_only and image is backing.image)
    for step in plan.steps:
        os.makedirs(os.path.dirname(step.path), mode=0o700, exist_ok=True)
        make(step)
    return replace(plan, backings=tuple(_observed(backing) for backing in plan.backings))


# --- looking ---------------------------------------------------------------------------------------------------------


def _check(image: Image, write: bool) -> None:
    size = _size(image.path, write)
    if image.format == "raw":
        # Any bytes are a raw disk; there is nothing to look into, and nothing that may be believed.
        if size == 0:
            raise PrepareError(f"{image.path} is empty; a disk needs at least one sector")
        return
    head = _head(image)
    if head.backing:
        raise PrepareError(
            f"{image.path} refers to another file ({head.backing}) and is refused;"
            f" flatten it: qemu-img convert -O qcow2 {image.path} flat.qcow2"
        )
    if head.data_elsewhere:
        raise PrepareError(
            f"{image.path} keeps its data in another file and is refused;"
            f" flatten it: qemu-img convert -O qcow2 {image.path} flat.qcow2"
        )
    if head.encrypted:
        raise PrepareError(
            f"{image.path} is encrypted, and nobody has its key here; decrypt it with qemu-img convert"
        )
    if not head.size:
        raise PrepareError(f"{image.path} is a disk of 0 bytes")


def _size(path: str, write: bool) -> int:
    """Bytes of a file or block device; opened as QEMU will, so that a missing right shows here."""
    if not path.startswith("/"):
        raise PrepareError(f"{path}: an image needs an absolute path")
    try:
        handle = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(handle).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise PrepareError(f"{path} is neither a file nor a block device")
            return os.lseek(handle, 0, os.SEEK_END)
        finally:
            os.close(handle)
    except IsADirectoryError:
        raise PrepareError(f"{path} is a directory; name the image file in it") from None
    except FileNotFoundError:
        raise PrepareError(f"{path} does not exist") from None
    except OSError as error:
        how = "written to" if write else "read"
        raise PrepareError(
            f"{path} can't be {how} by uid {os.geteuid()} ({error.strerror}); give that user the right or move the file"
        ) from error


def _head(image: Image) -> qcow2.Header:
    """What an image says of itself, read as the format that it is said to have."""
    assert image.format == "qcow2"
    try:
        return qcow2.read(image.path)
    except qcow2.NotQcow2 as error:
        raise PrepareError(f"{image.path} is not a qcow2 image: {error}") from None
    except OSError as error:
        raise PrepareError(f"{image.path} can't be read: {error.strerror}") from error


def _observed(backing: Backing) -> Backing:
    images = [image for image in (backing.image, backing.base) if image is not None]
    return replace(
        backing,
        image=_with_kind(backing.image),
        base=_with_kind(backing.base) if backing.base is not None else None,
        direct=all(takes_direct(image.path) and _is_aligned(image) for image in images),
    )


def _is_aligned(image: Image) -> bool:
    """Whether QEMU could write a raw image's last bytes around the page cache; it refuses a disk where it could not.

    The unit is the file system's (512 or 4096 bytes); tmpfs has had O_DIRECT since Linux 6.6, with pages.
    """
    if image.format != "raw":
        return True
    with open(image.path, "rb") as file:
        return file.seek(0, os.SEEK_END) % _SECTOR == 0


def _with_kind(image: Image) -> Image:
    seen = os.stat(image.path)
    return replace(
        image,
        block=stat.S_ISBLK(seen.st_mode),
        # stat(2) counts in units of 512 bytes, whatever the file system's are.
        allocated=stat.S_ISREG(seen.st_mode) and seen.st_blocks * 512 >= seen.st_size,
    )


def takes_direct(path: str) -> bool:
    """Whether the file system lets this file be read around the page cache (O_DIRECT), found out by doing it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with mmap.mmap(-1, _SECTOR) as aligned:
            os.preadv(handle, [aligned], 0)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


# --- making ----------------------------------------------------------------------------------------------------------


def make(step: Step) -> None:
    """Carry one step out.

    :raise PrepareError: it failed; the message names the file.
    """
    match step:
        case CreateOverlay(path=path, base=base):
            _create(path, _disk_size(base), base)
        case CreateEmpty(path=path, size=size):
            _create(path, size)
        case CreateSeed():
            iso.write(step.path, step.volume_id, _decoded(step.files))
        case CreateSeedFromDirectory():
            secret = {name: _key(step.directory, keys, name) for name, keys in step.keys.items()}
            files = _decoded(step.files) | secret
            if step.public_keys:
                files[step.meta_data] = _with_keys(files[step.meta_data], step)
            iso.write(step.path, step.volume_id, files)
        case CopyFile(path=path, source=source):
            _copy(source, path)
        case _:
            assert_never(step)


def _create(path: str, size: int, base: Image | None = None) -> None:
    try:
        # An image of a run that was killed is not believed, whatever is in it.
        if os.path.lexists(path):
            os.unlink(path)
        if base is None:
            qcow2.create(path, size)
        else:
            qcow2.create(path, size, backing=base.path, backing_format=base.format)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise PrepareError(f"{path} can't be made: {why}") from None


def _disk_size(image: Image) -> int:
    """Bytes of the disk that is in an image."""
    return _size(image.path, write=False) if image.format == "raw" else _head(image).size


def _copy(source: str, path: str) -> None:
    if os.path.exists(path):
        return
    try:
        shutil.copyfile(source, path)
        os.chmod(path, 0o600)
    except OSError as error:
        raise PrepareError(f"{source} can't be copied to {path}: {error.strerror}") from error


def _decoded(files: dict[str, str]) -> dict[str, bytes]:
    return {name: base64.b64decode(data) for name, data in files.items()}


def _with_keys(meta_data: bytes, step: CreateSeedFromDirectory) -> bytes:
    """The meta data with the ssh keys, each under its number."""
    found: list[str] = []
    for directory in step.public_keys:
        try:
            given = secretfiles.values(os.path.basename(directory), directory)
        except HostError as error:
            raise PrepareError(str(error)) from error
        found += given.values()
    keys = secretfiles.keys(found)
    meta = json.loads(meta_data) | {
        step.public_keys_field: {str(number): key for number, key in enumerate(keys)}
    }
    return (json.dumps(meta, indent=1) + "\n").encode()


def _key(directory: str, keys: tuple[str, ...], name: str) -> bytes:
    for key in keys:
        try:
            with open(os.path.join(directory, key), "rb") as file:
                data = file.read(_LONGEST_KEY + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise PrepareError(f"{directory}/{key}: {error.strerror}") from error
        if len(data) > _LONGEST_KEY:
            raise PrepareError(f"{directory}/{key} is larger than a Secret can be (1 MiB)")
        return data
    raise PrepareError(f"the Secret for {name} has none of the keys {' and '.join(keys)}")
