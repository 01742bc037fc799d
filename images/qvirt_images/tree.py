"""A file tree in memory and its form as a cpio archive (newc), the kernel's initramfs.

Written here rather than by cpio(1) over a directory: device nodes and root's files then need no
root, and the bytes depend on nothing but the contents.
"""

from __future__ import annotations

import io
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from qvirt_images.tools import EPOCH


@dataclass(frozen=True)
class Node:
    """One entry: `mode` with its type bits, `data` the contents or a link's target."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


@dataclass
class Tree:
    """Paths without a leading slash, each with its node; parents are made as needed."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory and those above it."""
        if path not in self.nodes:
            self._parents(path)
            self.nodes[path] = Node(stat.S_IFDIR | mode)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add or replace a regular file."""
        self._parents(path)
        self.nodes[path] = Node(stat.S_IFREG | mode, data)

    def node(self, path: str, node: Node) -> None:
        """Add or replace an entry as it is."""
        self._parents(path)
        self.nodes[path] = node

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._parents(path)
        self.nodes[path] = Node(stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int) -> None:
        """Add a character device readable by root alone."""
        self._parents(path)
        self.nodes[path] = Node(stat.S_IFCHR | 0o600, device=(major, minor))

    def overlay(self, source: Path) -> None:
        """Add all files below a directory, executable or not as they are there."""
        for file in sorted(source.rglob("*")):
            if file.is_file():
                executable = file.stat().st_mode & stat.S_IXUSR
                name = file.relative_to(source).as_posix()
                self.file(name, file.read_bytes(), 0o755 if executable else 0o644)

    def _parents(self, path: str) -> None:
        above = path.rpartition("/")[0]
        if above:
            self.directory(above)


def cpio(tree: Tree) -> bytes:
    """The tree as an uncompressed newc archive; equal trees give equal bytes."""
    out = io.BytesIO()
    for number, (path, node) in enumerate(sorted(tree.nodes.items()), start=1):
        _entry(out, path, node, number)
    _entry(out, "TRAILER!!!", Node(0), 0)
    out.write(b"\0" * (-out.tell() % 512))
    return out.getvalue()


def _entry(out: io.BytesIO, path: str, node: Node, number: int) -> None:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    numbers = (
        number,
        node.mode,
        0,
        0,
        links,
        EPOCH,
        len(node.data),
        0,
        0,
        *node.device,
        len(name),
        0,
    )
    out.write(b"070701" + b"".join(b"%08x" % value for value in numbers) + name)
    out.write(b"\0" * (-out.tell() % 4))
    out.write(node.data)
    out.write(b"\0" * (-out.tell() % 4))


def member(archive: tarfile.TarFile, path: str) -> bytes:
    """Contents of a file of a package, links followed; `path` without a leading slash."""
    name = f"./{path}"
    for _ in range(8):
        info = archive.getmember(name)
        if not info.issym():
            break
        target = Path(info.linkname)
        joined = target if target.is_absolute() else Path(name).parent / target
        name = "./" + joined.as_posix().removeprefix("./").lstrip("/")
    stream = archive.extractfile(info)
    if stream is None:
        raise KeyError(path)
    return stream.read()
