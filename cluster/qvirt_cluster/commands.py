"""Running other programs to their end, with a deadline, and quoting them when they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from qvirt_cluster.errors import CommandFailed

#: An ordinary PATH lacks the sbin directories, where iptables, losetup and ip live.
SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_program(name: str) -> str | None:
    """The absolute path of a program of this machine, None if it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SEARCH_PATH}")


def run(
    *argv: str | Path,
    deadline: float = 60,
    stdin: str | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    accept: Sequence[int] = (0,),
) -> str:
    """Run a program and give its standard output.

    :param deadline: seconds until it is killed.
    :param accept: exit statuses that are no error.
    :raise CommandFailed: not installed, late, or another exit status; quotes the last lines that it said.
    """
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            input=stdin if stdin is not None else "",
            env=dict(environment) if environment is not None else _environment(),
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandFailed(f"{command[0]} is not installed; see cluster/packages.txt") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{command} did not end within {deadline:.0f} s") from error
    if done.returncode not in accept:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise CommandFailed(f"{' '.join(command[:4])} ... failed ({done.returncode}): {tail}")
    return done.stdout


def _environment() -> dict[str, str]:
    path = f"{os.environ.get('PATH', '')}:{SEARCH_PATH}"
    return {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}
