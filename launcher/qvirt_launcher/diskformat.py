"""What a disk image is, by its first bytes. Only for images that no guest writes to: containerDisks and their sources.

Facts: the magics of other tools' formats from QEMU's block drivers (`qcow2` has that one's).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from qvirt_launcher import qcow2
from qvirt_launcher.backing import Format
from qvirt_launcher.errors import ImageError

#: Offset, magic, what it is and what to do. QEMU could open some of these; they are refused as raw, which they aren't.
_FOREIGN: Final = (
    (0, b"KDMV", "a VMDK image; qemu-img convert -O qcow2 it"),
    (0, b"COWD", "a VMDK image; qemu-img convert -O qcow2 it"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor; qemu-img convert -O qcow2 it"),
    (0, b"vhdxfile", "a VHDX image; qemu-img convert -O qcow2 it"),
    (0, b"conectix", "a VHD image; qemu-img convert -O qcow2 it"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image; qemu-img convert -O qcow2 it"),
    (0, b"QED\x00", "a QED image; qemu-img convert -O qcow2 it"),
    (0, b"\x1f\x8b", "compressed with gzip; gunzip it"),
    (0, b"\xfd7zXZ\x00", "compressed with xz; unxz it"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd; unzstd it"),
    (0, b"BZh", "compressed with bzip2; bunzip2 it"),
)


def image_format(path: Path) -> Format:
    """qcow2 or raw.

    :raise ImageError: unreadable, empty, another tool's format, a qcow2 that names other files or is encrypted.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
            size = os.lseek(file.fileno(), 0, os.SEEK_END)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}; check the path given to --image") from error
    if size == 0:
        raise ImageError(f"{path}: is empty; a disk image was expected")
    if head.startswith(qcow2.MAGIC):
        _check_qcow2(path, head)
        return "qcow2"
    for offset, magic, remedy in _FOREIGN:
        if head[offset:].startswith(magic):
            raise ImageError(f"{path}: is {remedy} first")
    if size % 512:
        raise ImageError(
            f"{path}: is no qcow2, and as a raw disk it would have {size} bytes, which is not a"
            " whole number of 512-byte sectors; check that it is a disk image"
        )
    return "raw"


def _check_qcow2(path: Path, head: bytes) -> None:
    try:
        header = qcow2.parse(head)
    except qcow2.NotQcow2 as error:
        raise ImageError(
            f"{path}: is no qcow2 image that can be used: {error}; copy it anew, or qemu-img convert -O qcow2 it"
        ) from None
    if header.backing:
        raise ImageError(
            f"{path}: has a backing file, which would be opened on this machine; qemu-img convert -O qcow2 makes"
            " one without"
        )
    if header.data_elsewhere:
        raise ImageError(f"{path}: keeps its data in another file; qemu-img convert -O qcow2 it")
    if header.encrypted:
        raise ImageError(f"{path}: is encrypted; qemu-img convert it to an unencrypted qcow2")
    if header.size == 0:
        raise ImageError(f"{path}: is a qcow2 image of a disk of 0 bytes")
