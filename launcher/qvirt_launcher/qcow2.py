"""qcow2 images, as far as a launcher needs them: what a header says, and a new image with nothing in it or over another.

By hand, as qemu-img takes 15 to 60 ms for each, and reading a stranger's header takes no program that reads all of it.
Source: QEMU's docs/interop/qcow2.txt; the names of fields are those there.
"""

from __future__ import annotations

import os
import struct
from typing import Final

import msgspec

MAGIC: Final = b"QFI\xfb"
#: To read the header of a file; fields of version 3 end at 104, what it can name lies in the first cluster.
HEAD: Final = 1 << 16

#: magic, version, backing_file_offset, backing_file_size, cluster_bits, size, crypt_method, l1_size, l1_table_offset,
#: refcount_table_offset, refcount_table_clusters, nb_snapshots, snapshots_offset
_FIELDS: Final = struct.Struct(">4sIQIIQIIQQIIQ")
#: incompatible_features, compatible_features, autoclear_features, refcount_order, header_length
_FIELDS_3: Final = struct.Struct(">QQQII")
_EXTENSION: Final = struct.Struct(">II")
_BACKING_FORMAT: Final = 0xE2792ACA
_CLUSTER_BITS: Final = range(9, 22)
_LONGEST_NAME: Final = 1023
#: Bits of incompatible_features: dirty, corrupt, external data file, compression type, extended L2 entries.
_EXTERNAL_DATA_FILE: Final = 1 << 2
_KNOWN_FEATURES: Final = (1 << 5) - 1

_SECTOR: Final = 512
#: What we write: clusters of 64 KiB and references counted in 16 bits, as qemu-img does by itself.
_BITS: Final = 16
_CLUSTER: Final = 1 << _BITS
_REFCOUNT_ORDER: Final = 4
_HEADER_LENGTH: Final = 112
#: What an entry of the first table leads to: a cluster of 8-byte entries for a cluster each.
_PER_L1_ENTRY: Final = _CLUSTER * _CLUSTER // 8
#: Clusters whose references one block of counters counts.
_COUNTED: Final = _CLUSTER // 2


class NotQcow2(Exception):
    """The text is no qcow2 header, or one of a kind that nobody knows; says why."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What matters of one."""

    version: int
    #: Of the disk, in bytes.
    size: int
    #: As it is written there; empty: the image stands alone.
    backing: str = ""
    data_elsewhere: bool = False
    encrypted: bool = False


def parse(head: bytes) -> Header:
    """The header in the first `HEAD` bytes of a file.

    :raise NotQcow2: there is none.
    """
    if not head.startswith(MAGIC):
        raise NotQcow2("it does not begin with QFI")
    if len(head) < _FIELDS.size + _FIELDS_3.size:
        raise NotQcow2("it is cut off in its header")
    _, version, offset, length, bits, size, crypt, *_ = _FIELDS.unpack_from(head)
    if version not in {2, 3}:
        raise NotQcow2(f"it is of version {version}")
    if bits not in _CLUSTER_BITS:
        raise NotQcow2(f"its clusters would have 2^{bits} bytes")
    features = _FIELDS_3.unpack_from(head, _FIELDS.size)[0] if version == 3 else 0
    if features & ~_KNOWN_FEATURES:
        raise NotQcow2(f"it uses features that are unknown ({features:#x})")
    if length > _LONGEST_NAME:
        raise NotQcow2("the name of its backing file is too long")
    name = head[offset : offset + length].decode(errors="replace") if offset else ""
    return Header(
        version=version,
        size=size,
        # An offset alone is a backing file: QEMU would look there.
        backing=name or "?" if offset else "",
        data_elsewhere=bool(features & _EXTERNAL_DATA_FILE),
        encrypted=crypt != 0,
    )


def read(path: str) -> Header:
    """The header of a file.

    :raise NotQcow2: it has none. OSError: it can't be read.
    """
    with open(path, "rb") as file:
        return parse(file.read(HEAD))


def create(path: str, size: int, *, backing: str = "", backing_format: str = "") -> None:
    """Make an image of a disk of this many bytes (rounded up to a sector), mode 0600.

    :param backing: the file that shows through until something is written.
    :raise ValueError: its name is too long. FileExistsError, OSError: as from `os.open`.
    """
    size += -size % _SECTOR
    name = os.fsencode(backing)
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"a backing file's name has {_LONGEST_NAME} bytes at most: {backing}")
    entries = -(-size // _PER_L1_ENTRY)
    tables = -(-entries * 8 // _CLUSTER)
    # Clusters, in order: header, table of counters, a block of counters, the first table.
    used = 3 + tables
    assert used <= _COUNTED, f"{size} bytes are more than QEMU's limit"
    head = _header(size, entries, name, backing_format.encode())
    counters = struct.pack(">H", 1) * used
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(path, flags, 0o600)
    try:
        os.ftruncate(handle, used * _CLUSTER)
        for offset, data in ((0, head), (1, struct.pack(">Q", 2 * _CLUSTER)), (2, counters)):
            _write(handle, data, offset * _CLUSTER)
    finally:
        os.close(handle)


def _header(size: int, entries: int, backing: bytes, backing_format: bytes) -> bytes:
    extensions = b""
    if backing:
        padding = bytes(-len(backing_format) % 8)
        extensions = (
            _EXTENSION.pack(_BACKING_FORMAT, len(backing_format)) + backing_format + padding
        )
    extensions += _EXTENSION.pack(0, 0)
    offset = _HEADER_LENGTH + len(extensions) if backing else 0
    first = _FIELDS.pack(
        *(MAGIC, 3, offset, len(backing), _BITS, size, 0),
        *(entries, 3 * _CLUSTER, _CLUSTER, 1, 0, 0),
    )
    second = _FIELDS_3.pack(0, 0, 0, _REFCOUNT_ORDER, _HEADER_LENGTH)
    return (first + second).ljust(_HEADER_LENGTH, b"\0") + extensions + backing


def _write(handle: int, data: bytes, offset: int) -> None:
    if os.pwrite(handle, data, offset) != len(data):
        raise OSError(28, os.strerror(28))
