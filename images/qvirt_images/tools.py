"""Running other programs: checked for beforehand, quiet when they succeed, quoted when they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from qvirt_images.errors import BuildError

# File systems and archives carry this time (2024-01-01), so that equal inputs give equal bytes.
EPOCH = 1704067200

# Program -> Debian package that has it.
PACKAGE_OF: Mapping[str, str] = {
    "apt-get": "apt",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "gcc": "gcc",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "syslinux": "syslinux",
    "/usr/lib/syslinux/mbr/mbr.bin": "syslinux-common",
}


def _path() -> str:
    # An ordinary user's PATH lacks the sbin directories, where depmod and mke2fs live.
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def require(programs: Iterable[str]) -> None:
    """Check that all programs (names, or absolute files) are there.

    Raises BuildError naming all that are missing and the command that installs them.
    """
    missing = [
        name
        for name in programs
        if not (Path(name).exists() if name.startswith("/") else shutil.which(name, path=_path()))
    ]
    if missing:
        packages = " ".join(sorted({PACKAGE_OF[name] for name in missing}))
        raise BuildError(
            f"missing on this machine: {', '.join(missing)}; install with: apt-get install {packages}"
        )


def environment() -> dict[str, str]:
    """The environment of every program: fixed time, locale and time zone; proxies pass through."""
    fixed = {
        "PATH": _path(),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "E2FSPROGS_FAKE_TIME": str(EPOCH),
        "MTOOLS_SKIP_CHECK": "1",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    return {**os.environ, **fixed}


def run(*argv: str | Path, cwd: Path | None = None, deadline: float = 600) -> str:
    """Run a program to its end within `deadline` seconds and return its standard output.

    Raises BuildError with the tail of what it said if it fails or is late.
    """
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline,
        )
    except FileNotFoundError as error:
        raise BuildError(
            f"{command[0]} is not installed; install package {PACKAGE_OF.get(command[0], command[0])}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(
            f"{command[0]} did not finish within {deadline:.0f} s: {command}"
        ) from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise BuildError(
            f"{' '.join(command[:3])} ... failed with status {done.returncode}:\n{tail}"
        )
    return done.stdout
