"""What a disk image is, by its first bytes. Only for images that no guest writes to: containerDisks and their sources.

Facts: QEMU docs/interop/qcow2.txt; the magics of other tools' formats from QEMU's block drivers.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from qvirt_launcher.backing import Format
from qvirt_launcher.errors import ImageError

_QCOW_MAGIC: Final = b"QFI\xfb"
_EXTERNAL_DATA_FILE: Final = 1 << 2
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQ")
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
    if head.startswith(_QCOW_MAGIC):
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
    if len(head) < 104:
        raise ImageError(f"{path}: is a qcow2 image cut off in its header; copy it anew")
    (_, version, backing, _, _, size, crypt, _, _, _, _, _, _) = _HEADER.unpack_from(head)
    features = int.from_bytes(head[72:80], "big") if version >= 3 else 0
    if version not in {2, 3}:
        raise ImageError(f"{path}: is qcow version {version}; qemu-img convert -O qcow2 it first")
    if backing:
        raise ImageError(
            f"{path}: has a backing file, which would be opened on this machine; qemu-img convert -O qcow2 makes"
            " one without"
        )
    if features & _EXTERNAL_DATA_FILE:
        raise ImageError(f"{path}: keeps its data in another file; qemu-img convert -O qcow2 it")
    if crypt:
        raise ImageError(f"{path}: is encrypted; qemu-img convert it to an unencrypted qcow2")
    if size == 0:
        raise ImageError(f"{path}: is a qcow2 image of a disk of 0 bytes")
