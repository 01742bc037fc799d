"""What the layers of a container image amount to: one tree of names, and any regular file out of it.

Layers are read as streams, highest first, and nothing is unpacked but the wanted file: no name in an archive ever becomes
a name on this machine, so `..`, absolute names and links can't lead out. Whiteouts: OCI image-spec, layer.md.
"""

from __future__ import annotations

import errno
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Literal

import msgspec

from qvirt_launcher.errors import ImageError
from qvirt_launcher.layertar import BLOCK, BROKEN, members
from qvirt_launcher.oci import ContainerImage, Layer

#: Where a containerDisk's image carries its disk (KubeVirt: DiskSourceFallbackPath).
DISK_FOLDER: Final = "disk"
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_MAX_LINKS: Final = 40
#: Images with more names than this are refused; the biggest distributions have a tenth of it.
_MAX_ENTRIES: Final = 5_000_000

#: Called with the bytes written so far.
Progress = Callable[[int], None]


class Entry(msgspec.Struct, frozen=True):
    """One name of the merged tree. ``link`` is the target of a symbolic link, or the other name of a hard link."""

    kind: Literal["file", "directory", "symlink", "hardlink", "other"]
    layer: int
    link: str = ""


def extract(image: ContainerImage, path: str, target: Path, progress: Progress) -> str:
    """Write one file of the image to ``target``.

    :param path: absolute path inside the image; empty: the only entry of ``/disk``.
    :return: the file's path inside the image.
    :raise ImageError: there is none, there are several, it is no regular file, or the image is damaged.
    """
    wanted = _normal(path) if path else DISK_FOLDER
    try:
        return _extract(image, path, _Spool(wanted, target, progress))
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ImageError(
                f"{target.parent}: {error.strerror}; make room for the disk"
            ) from error
        raise ImageError(f"a layer can't be read: {error}; copy the image anew") from error


def _extract(image: ContainerImage, path: str, spool: _Spool) -> str:
    tree = _merge(image, spool)
    name = _resolve(tree, path) if path else _only_disk(tree)
    entry = tree.get(name)
    if entry is None or entry.kind not in {"file", "hardlink"}:
        raise ImageError(f"/{name}: is not a regular file in the image; the disk must be one")
    # A hard link's other name is in the same layer, as a regular file, even if a higher layer removed it.
    source = entry.link if entry.kind == "hardlink" else name
    if spool.name != (entry.layer, source):
        spool.take(image.layers[entry.layer], entry.layer, source)
    return name


class _Spool:
    """Takes the likely file on the first pass, so that a big layer is read once."""

    def __init__(self, wanted: str, target: Path, progress: Progress) -> None:
        self.name: tuple[int, str] | None = None
        self._wanted = wanted
        self._target = target
        self._progress = progress

    def offer(self, index: int, name: str, open_member: Callable[[], BinaryIO]) -> None:
        likely = name == self._wanted or str(PurePosixPath(name).parent) == self._wanted
        if likely and self.name is None:
            self._write(open_member())
            self.name = (index, name)

    def take(self, layer: Layer, index: int, name: str) -> None:
        for member, open_member in members(layer):
            if _normal(member.name) == name and member.isreg():
                self._write(open_member())
                self.name = (index, name)
        if self.name != (index, name):
            raise ImageError(
                f"/{name}: is linked to, but is not in the layer; build the image anew"
            )

    def _write(self, source: BinaryIO) -> None:
        """Copies, leaving holes where the image has only zeros."""
        written = 0
        with self._target.open("wb") as file:
            while block := source.read(BLOCK):
                if block.count(0) == len(block):
                    file.seek(len(block), 1)
                else:
                    file.write(block)
                written += len(block)
                self._progress(written)
            file.truncate(written)


def _merge(image: ContainerImage, spool: _Spool) -> dict[str, Entry]:
    tree: dict[str, Entry] = {}
    removed: set[str] = set()
    opaque: set[str] = set()
    for index in reversed(range(len(image.layers))):
        names: dict[str, Entry] = {}
        gone: set[str] = set()
        hiding: set[str] = set()
        for member, open_member in members(image.layers[index]):
            name = _normal(member.name)
            folder, base = str(PurePosixPath(name).parent), PurePosixPath(name).name
            if base == _OPAQUE:
                hiding.add(folder)
            elif base.startswith(_WHITEOUT):
                gone.add(str(PurePosixPath(folder) / base.removeprefix(_WHITEOUT)))
            elif not _hidden(name, tree, removed, opaque):
                names[name] = _entry(member, index)
                if member.isreg():
                    spool.offer(index, name, open_member)
            if len(tree) + len(names) > _MAX_ENTRIES:
                raise ImageError("the image has too many files; it can't be a disk's image")
        tree = names | tree
        removed |= gone
        opaque |= hiding
    return tree


def _hidden(name: str, tree: dict[str, Entry], removed: set[str], opaque: set[str]) -> bool:
    """Whether layers above have this name, or took it or a folder of it away."""
    if name in tree or name in removed:
        return True
    for folder in map(str, PurePosixPath(name).parents):
        above = tree.get(folder)
        if folder in removed or folder in opaque:
            return True
        if above is not None and above.kind != "directory":
            return True
    return False


def _entry(member: tarfile.TarInfo, layer: int) -> Entry:
    if member.isreg():
        return Entry("file", layer)
    if member.isdir():
        return Entry("directory", layer)
    if member.issym():
        return Entry("symlink", layer, member.linkname)
    if member.islnk():
        return Entry("hardlink", layer, _normal(member.linkname))
    return Entry("other", layer)


def _only_disk(tree: dict[str, Entry]) -> str:
    folder = _resolve(tree, DISK_FOLDER, missing_ok=True)
    found = sorted({_child(name, folder) for name in tree if name.startswith(f"{folder}/")})
    if not found:
        raise ImageError(
            f"no file found in folder /{DISK_FOLDER}, no disk present; build the image with its disk there"
        )
    if len(found) > 1:
        raise ImageError(
            f"more than one file found in folder /{DISK_FOLDER}, only one disk is allowed"
            f" (found {', '.join(found[:5])}); name one with the volume's path:"
        )
    return _resolve(tree, f"{folder}/{found[0]}")


def _child(name: str, folder: str) -> str:
    return name.removeprefix(f"{folder}/").split("/", 1)[0]


def _resolve(tree: dict[str, Entry], path: str, missing_ok: bool = False) -> str:
    """Follows symbolic links inside the image, whose root is the end of every way up."""
    todo = list(reversed(PurePosixPath("/" + path).parts[1:]))
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        entry = tree.get("/".join([*done, part]))
        if entry is not None and entry.kind == "symlink":
            links += 1
            if links > _MAX_LINKS:
                raise ImageError(f"{path}: too many symbolic links; put the file itself there")
            if entry.link.startswith("/"):
                done.clear()
            todo += [p for p in reversed(PurePosixPath(entry.link).parts) if p != "/"]
            continue
        done.append(part)
    name = "/".join(done)
    if not missing_ok and name not in tree:
        raise ImageError(f"{path}: there is no such file in the image; check the volume's path")
    return name


def _normal(name: str) -> str:
    parts = PurePosixPath("/" + name).parts[1:]
    if ".." in parts:
        raise ImageError(f"the image has a file named {name!r}; names with .. are refused")
    return "/".join(parts)
