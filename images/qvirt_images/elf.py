"""Which shared libraries an ELF file names: what ldd would follow, read without running anything.

Source: System V ABI, gABI chapter 5 (program header, dynamic section); 64-bit little-endian files only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MAGIC = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29


def needed(data: bytes) -> tuple[list[str], list[str]]:
    """Names of the libraries, and the directories that the file itself wants searched; nothing if it is no such file."""
    if not data.startswith(_MAGIC):
        return [], []
    segments = list(_segments(data))
    dynamic = next((found for found in segments if found[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return [], []
    entries = list(_entries(data, dynamic[1], dynamic[3]))
    address = next((value for tag, value in entries if tag == _DT_STRTAB), 0)
    strings = _offset(segments, address)
    names = [_string(data, strings + value) for tag, value in entries if tag == _DT_NEEDED]
    paths = [
        _string(data, strings + value) for tag, value in entries if tag in (_DT_RPATH, _DT_RUNPATH)
    ]
    return names, [path for joined in paths for path in joined.split(":")]


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Type, offset, address and size in the file of each program header."""
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for number in range(count):
        kind, _flags, offset, address, _physical, length = struct.unpack_from(
            "<IIQQQQ", data, table + number * size
        )
        yield kind, offset, address, length


def _entries(data: bytes, offset: int, length: int) -> Iterator[tuple[int, int]]:
    for place in range(offset, offset + length, 16):
        tag, value = struct.unpack_from("<QQ", data, place)
        if tag == 0:
            return
        yield tag, value


def _offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, start, length in segments:
        if kind == _PT_LOAD and start <= address < start + length:
            return offset + address - start
    return address


def _string(data: bytes, place: int) -> str:
    return data[place : data.index(b"\0", place)].decode()
