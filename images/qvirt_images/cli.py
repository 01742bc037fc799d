"""The command `python3 images/build.py`."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from qvirt_images import oci, stamp
from qvirt_images.apt import Archive, Package
from qvirt_images.errors import BuildError
from qvirt_images.targets import TARGETS, Target
from qvirt_images.tools import require

_ROOT = Path(__file__).resolve().parent.parent
_EPILOG = """\
Each target leaves TARGET.qcow2 (the disk), TARGET.oci.tar (the disk as a containerDisk, an
oci-archive) and TARGET.json (versions and hashes) in the output directory; demo guests also
TARGET.vmlinuz and TARGET.initrd, for booting a kernel directly.

A finished target is left alone while its recipe and its files are unchanged. With --update the
Debian archive is asked for newer packages, and the target is built again if there are any.

Demo guests need no root. Packages come through apt-get with the machine's own sources and a
private state: its package database, architectures and lists are never changed. What a bare
Debian machine needs for building is listed in images/packages.txt.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0 done, 1 failed with one message, 2 usage."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "pack":
            digest = oci.pack(options.disk, options.archive, name=options.name, title=options.name)
            print(f"{options.archive}: sha256:{digest}")
        else:
            wanted = TARGETS.values() if options.command == "all" else [TARGETS[options.command]]
            for target in wanted:
                _build(target, options)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'build'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build.py",
        description="Build guest disks, and containerDisk images of them, from Debian packages.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_text in [
        *((t.name, t.summary) for t in TARGETS.values()),
        ("all", "all of them"),
    ]:
        _add_options(commands.add_parser(name, help=help_text, description=help_text))
    text = "pack any raw or qcow2 disk as a containerDisk (oci-archive)"
    pack = commands.add_parser("pack", help=text, description=text)
    pack.add_argument("disk", type=Path, metavar="DISK")
    pack.add_argument("archive", type=Path, metavar="ARCHIVE", help="the oci-archive to write")
    pack.add_argument("--name", default="disk:latest", help="name and tag (default: %(default)s)")
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        default=_ROOT.parent / "build" / "guest",
        metavar="DIR",
        help="where the results go (default: build/guest of this tree)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=_default_cache(),
        metavar="DIR",
        help="downloaded packages and package lists (default: %(default)s)",
    )
    parser.add_argument(
        "--sources",
        type=Path,
        metavar="FILE",
        help="a sources.list to use instead of the machine's own; it must name Debian 12",
    )
    parser.add_argument("--update", action="store_true", help="look for newer packages")


def _default_cache() -> Path:
    if os.geteuid() == 0:
        return Path("/var/cache/qvirt/images")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "qvirt" / "images"


def _build(target: Target, options: argparse.Namespace) -> None:
    output: Path = options.output.resolve()
    recipe = stamp.recipe_hash(target.recipe_files(_ROOT), _ROOT.parent)
    if not options.update and stamp.read(output, target.name, recipe, target.outputs):
        print(f"{target.name}: up to date in {output}")
        return
    require(target.tools)
    output.mkdir(parents=True, exist_ok=True)
    options.cache.mkdir(parents=True, exist_ok=True)
    say = _progress(target.name)
    with (options.cache / f"lock-{target.architecture}").open("w") as lock:
        _wait_for(lock, say)
        # Read again: the build that held the lock may have been this one.
        finished = stamp.read(output, target.name, recipe, target.outputs)
        if finished and not options.update:
            say(f"up to date in {output}")
            return
        say("asking the Debian archive")
        archive = Archive(options.cache.resolve(), target.architecture, options.sources)
        archive.update()
        versions = target.packages(archive)
        if finished == stamp.versions(versions):
            say(f"up to date in {output}, nothing newer in the archive")
            return
        _build_and_replace(target, archive, versions, output, say)
    stamp.write(output, target.name, recipe, versions, target.outputs)
    size = sum((output / name).stat().st_size for name in target.outputs)
    say(f"done, {size // 1024**2} MiB in {output}")


def _build_and_replace(
    target: Target,
    archive: Archive,
    versions: list[Package],
    output: Path,
    say: Callable[[str], None],
) -> None:
    with tempfile.TemporaryDirectory(prefix=".build-", dir=output) as scratch:
        target.build(archive, versions, Path(scratch), say)
        # Renamed, not written over: a virtual machine may run on the disk of an earlier build.
        for name in target.outputs:
            (Path(scratch) / name).replace(output / name)


def _wait_for(lock: IO[str], say: Callable[[str], None]) -> None:
    """Take the lock of an architecture's cache: two builds at once would write the same files."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another build to end")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _progress(name: str) -> Callable[[str], None]:
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{name}: {time.monotonic() - started:5.1f} s  {text}", flush=True)

    return say
