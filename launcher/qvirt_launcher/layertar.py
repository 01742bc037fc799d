"""A layer as a stream of tar members: decompressed on the way, its digests checked at the end."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import shutil
import subprocess
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, cast

from qvirt_launcher.errors import ImageError
from qvirt_launcher.oci import Layer

#: What goes wrong inside the readers of damaged archives.
BROKEN: Final = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)
BLOCK: Final = 1024 * 1024

#: A member, and a way to read it before the next one is asked for.
Member = tuple[tarfile.TarInfo, Callable[[], BinaryIO]]


def members(layer: Layer) -> Iterator[Member]:
    """The layer's members, in its order; after the last one the layer's digests are checked.

    :raise ImageError: missing, damaged, or not what its digests say.
    """
    try:
        with layer.open() as blob:
            outer = _Hashing(blob)
            with _decompressed(outer) as stream:
                inner = _Hashing(stream)
                with tarfile.open(fileobj=cast("BinaryIO", inner), mode="r|") as tar:
                    for member in tar:
                        yield member, lambda member=member: _content(tar, member)  # type: ignore[misc]
                inner.drain()
            outer.drain()
    except KeyError:
        raise ImageError(f"the layer {layer.name} is missing; copy the image anew") from None
    except BROKEN as error:
        raise ImageError(f"the layer {layer.name} can't be read: {error}") from error
    for said, found in ((layer.digest, outer), (layer.diff_id, inner)):
        if said and said != found.digest():
            raise ImageError(f"the layer {layer.name} is damaged: its digest is not {said}")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    part = tar.extractfile(member)
    assert part is not None  # asked for regular files only
    return cast("BinaryIO", part)


class _Hashing:
    """Reads through to a stream and hashes what was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        return data

    def drain(self) -> None:
        while self.read(BLOCK):
            pass

    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class _Peeked:
    """A stream whose first bytes were looked at already."""

    def __init__(self, start: bytes, stream: _Hashing) -> None:
        self._start = start
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not self._start:
            return self._stream.read(size)
        if size < 0:
            data, self._start = self._start + self._stream.read(), b""
            return data
        data, self._start = self._start[:size], self._start[size:]
        return data


@contextmanager
def _decompressed(blob: _Hashing) -> Iterator[BinaryIO]:
    """By magic, as media types of old archives don't tell."""
    start = blob.read(6)
    stream = cast("BinaryIO", _Peeked(start, blob))
    if start.startswith(b"\x1f\x8b"):
        with gzip.open(stream) as plain:
            yield cast("BinaryIO", plain)
    elif start.startswith(b"\x28\xb5\x2f\xfd"):
        with _zstd(stream) as output:
            yield output
    elif start == b"\xfd7zXZ\x00":
        with lzma.open(stream) as plain:
            yield cast("BinaryIO", plain)
    elif start.startswith(b"BZh"):
        with bz2.open(stream) as plain:
            yield cast("BinaryIO", plain)
    else:
        yield stream


@contextmanager
def _zstd(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Through the zstd program: Python has no zstd of its own before 3.14."""
    if shutil.which("zstd") is None:
        raise ImageError("a layer is compressed with zstd, and there is no zstd; apt install zstd")
    process = subprocess.Popen(
        ["zstd", "-d", "-c", "-q"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    feeder = threading.Thread(target=_feed, args=(stream, process.stdin), daemon=True)
    feeder.start()
    try:
        yield cast("BinaryIO", process.stdout)
        process.stdout.read()
        if process.wait() != 0:
            raise EOFError("zstd says that it is damaged")
    finally:
        process.kill()
        process.wait()
        feeder.join()
        process.stdout.close()


def _feed(stream: BinaryIO, pipe: BinaryIO) -> None:
    try:
        with pipe:
            shutil.copyfileobj(stream, pipe, BLOCK)
    except BrokenPipeError:
        pass  # the reader has ended, or was stopped
