"""``qvirt version``."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess

from qvirt_crds.version import VERSION
from qvirt_launcher.cli import exits

_DEADLINE = 10


def run(arguments: argparse.Namespace) -> int:
    """Print what is installed; a missing part is said, not an error."""
    found = {
        "qvirt": VERSION,
        "python": platform.python_version(),
        "qemu": _first_line("qemu-system-x86_64", "--version"),
        "skopeo": _first_line("skopeo", "--version"),
        "passt": "installed" if shutil.which("passt") else "not found",
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for name, version in found.items():
            print(f"{name:<8}{version}")
    return exits.OK


def _first_line(program: str, option: str) -> str:
    path = shutil.which(program)
    if path is None:
        return "not found"
    try:
        done = subprocess.run(
            [path, option], capture_output=True, text=True, timeout=_DEADLINE, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path} doesn't work: {error}"
    return done.stdout.partition("\n")[0].removeprefix("QEMU emulator version ")
