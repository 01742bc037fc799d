"""The kernel modules of a guest: those asked for, and what they depend on."""

from __future__ import annotations

import lzma
import re
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from qvirt_images.tools import run
from qvirt_images.tree import Tree

_NAME = re.compile(r"\./(?:usr/)?lib/modules/([^/]+)/(.*/)?([^/]+)\.ko(\.xz)?")
_BUILTIN = re.compile(r"\./(?:usr/)?lib/modules/[^/]+/modules\.builtin")


def _plain(name: str) -> str:
    # Dashes and underscores in module names are the same to the kernel.
    return name.replace("-", "_")


def _builtin(package: tarfile.TarFile, index: str) -> set[str]:
    stream = package.extractfile(index)
    assert stream is not None, index
    names = (line.decode().rpartition("/")[2] for line in stream)
    return {_plain(name.strip().removesuffix(".ko")) for name in names}


def _info(module: bytes, key: str) -> list[str]:
    """Values of `key` in the module's .modinfo section, which is a list of NUL-ended key=value."""
    pattern = rb"(?<=\0)" + key.encode() + rb"=([^\0]*)\0"
    return [value.decode() for value in re.findall(pattern, module)]


def add_modules(tree: Tree, package: tarfile.TarFile, wanted: Iterable[str]) -> list[str]:
    """Put modules, their dependencies and depmod's indexes into the tree; returns what is not there.

    A driver that the kernel has built in counts as there; one that it lacks is for the recipe's
    author to judge. Modules stay byte for byte as the package has them, for their signatures.
    """
    members: dict[str, tuple[str, bool]] = {}
    builtin: set[str] = set()
    release = ""
    for name in package.getnames():
        match = _NAME.fullmatch(name)
        if match:
            release = match[1]
            members[_plain(match[3])] = (name, match[4] is not None)
        elif _BUILTIN.fullmatch(name):
            builtin = _builtin(package, name)
    chosen: dict[str, bytes] = {}
    absent = []
    queue = [_plain(name) for name in wanted]
    for name in queue:
        if name in chosen:
            continue
        if name not in members:
            if name not in builtin:
                absent.append(name)
            continue
        path, packed = members[name]
        stream = package.extractfile(path)
        assert stream is not None, path
        data = lzma.decompress(stream.read()) if packed else stream.read()
        chosen[name] = data
        for dependency in _info(data, "depends"):
            queue += [_plain(word) for word in dependency.split(",") if word]
    files = {
        members[name][0].removeprefix("./").removeprefix("usr/").removesuffix(".xz"): data
        for name, data in chosen.items()
    }
    for path, data in files.items():
        tree.file(path, data)
    for path, data in _indexes(release, files).items():
        tree.file(path, data)
    return absent


def _indexes(release: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """modules.dep and modules.alias, the two that busybox's modprobe reads."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "usr/lib").mkdir(parents=True)
        (root / "lib").symlink_to("usr/lib")
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        for empty in ("modules.order", "modules.builtin"):
            (root / "lib/modules" / release / empty).touch()
        run("depmod", "-b", root, release)
        return {
            f"lib/modules/{release}/{name}": (root / "lib/modules" / release / name).read_bytes()
            for name in ("modules.dep", "modules.alias")
        }
