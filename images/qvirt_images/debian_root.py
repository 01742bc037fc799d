"""A small Debian root: chosen files out of packages, with the shared libraries that they name and no others.

No package is installed and none of its scripts runs, so nothing needs root and equal packages give equal files.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from qvirt_images.elf import needed
from qvirt_images.errors import BuildError
from qvirt_images.tree import Node, Tree

# Where Debian's loader looks without a cache, in the order in which it does.
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib")
LOADER = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
# As in an installed Debian: the directories on top are links.
_MERGED = ("bin", "sbin", "lib", "lib64")


class Packages:
    """The files of many packages, by path; a path without a leading slash, below usr where Debian has merged it."""

    def __init__(self, debs: Mapping[str, Path]) -> None:
        self._nodes: dict[str, Node] = {}
        self._package: dict[str, str] = {}
        for name, deb in sorted(debs.items()):
            for path, node in _files(deb):
                self._nodes[path] = node
                self._package[path] = name

    def matching(self, patterns: Iterable[str]) -> list[str]:
        """Paths by shell patterns, where ``*`` spans directories too.

        Raises BuildError for a pattern that nothing matches: a package has changed.
        """
        found: set[str] = set()
        for pattern in patterns:
            matches = fnmatch.filter(self._nodes, pattern)
            if not matches:
                raise BuildError(
                    f"no file of the packages matches {pattern}; the recipe is out of date"
                )
            found.update(matches)
        return sorted(found)

    def take(self, tree: Tree, paths: Iterable[str]) -> None:
        """Put files into a tree: also what links point to, the libraries that are named, and the licences.

        Raises BuildError naming a library that no package has.
        """
        waiting = [path for path in paths if path not in tree.nodes]
        packages = set()
        while waiting:
            path = waiting.pop()
            if path in tree.nodes:
                continue
            node = self._nodes[path]
            tree.node(path, node)
            packages.add(self._package[path])
            waiting += self._follow(path, node)
        for package in packages:
            licence = f"usr/share/doc/{package}/copyright"
            if licence in self._nodes and licence not in tree.nodes:
                waiting.append(licence)
        if waiting:
            self.take(tree, waiting)

    def take_libraries(self, tree: Tree, users: Tree) -> None:
        """Put the libraries into a tree that files of another tree name, such as Python's extension modules.

        Raises BuildError naming a library that no package has.
        """
        brought = {path.rpartition("/")[2] for path in users.nodes}
        for path, node in sorted(users.nodes.items()):
            names, directories = needed(node.data)
            wanted = [name for name in names if name not in brought]
            self.take(tree, [self._library(path, name, directories) for name in wanted])

    def _follow(self, path: str, node: Node) -> Iterator[str]:
        if stat.S_ISLNK(node.mode):
            target = _resolve(path, node.data.decode())
            if target in self._nodes:
                yield target
            return
        names, directories = needed(node.data)
        for name in names:
            yield self._library(path, name, directories)

    def _library(self, user: str, name: str, directories: Iterable[str]) -> str:
        own = [directory.lstrip("/") for directory in directories if directory.startswith("/")]
        for directory in (*own, *_LIBRARIES):
            path = f"{directory}/{name}"
            if path in self._nodes:
                return path
        raise BuildError(f"{user} needs {name}, which no package of the recipe has")


def base() -> Tree:
    """Directories, users and the links of a merged /usr."""
    tree = Tree()
    for name in _MERGED:
        tree.directory(f"usr/{name}")
        tree.link(name, f"usr/{name}")
    for name in ("dev", "proc", "sys", "run", "etc", "var", "root"):
        tree.directory(name)
    tree.directory("tmp", 0o1777)
    tree.link("var/run", "../run")
    tree.file(
        "etc/passwd",
        b"root:x:0:0:root:/root:/usr/sbin/nologin\n"
        b"qvirt:x:107:107:qvirt:/:/usr/sbin/nologin\n"
        # kopf asks who it is.
        b"operator:x:1000:1000:operator:/:/usr/sbin/nologin\n"
        b"nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    )
    tree.file("etc/group", b"root:x:0:\nqvirt:x:107:\noperator:x:1000:\nnogroup:x:65534:\n")
    return tree


def _files(deb: Path) -> Iterator[tuple[str, Node]]:
    plain = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE, check=True, timeout=300
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        for info in archive:
            path = _merged(info.name.removeprefix("./"))
            if info.issym():
                yield path, Node(stat.S_IFLNK | 0o777, info.linkname.encode())
            elif info.isfile() or info.islnk():
                with contextlib.closing(_opened(archive, info)) as stream:
                    # Set-user-id bits are of no use here, and nobody's wish.
                    yield path, Node(stat.S_IFREG | info.mode & 0o755, stream.read())


def _opened(archive: tarfile.TarFile, info: tarfile.TarInfo) -> tarfile.ExFileObject | io.BytesIO:
    stream = archive.extractfile(info)
    assert stream is not None, info.name
    return stream  # type: ignore[return-value]


def _merged(path: str) -> str:
    return f"usr/{path}" if path.partition("/")[0] in _MERGED else path


def _resolve(path: str, target: str) -> str:
    parts: list[str] = []
    joined = PurePosixPath("/") / PurePosixPath(path).parent / target
    for part in joined.parts[1:]:
        if part == "..":
            parts and parts.pop()
        else:
            parts.append(part)
    return _merged("/".join(parts))
