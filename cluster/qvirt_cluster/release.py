"""Kubernetes' programs from a release that someone serves, when K8S_RELEASE_URL says where.

The address is that of the folder with the programs of this machine's architecture, as the official
release lays it out: each program beside a file ``<program>.sha256``. No address is built in.
"""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from qvirt_cluster.build import PROGRAMS
from qvirt_cluster.errors import BuildFailed
from qvirt_cluster.locks import held
from qvirt_cluster.progress import say

_DEADLINE: Final = 60.0  # of one network step, not of the whole download


def download(url: str, cache: Path) -> Path:
    """The folder with the programs, downloaded if it is not in the cache yet.

    :raise BuildFailed: unreachable, or a checksum is missing or wrong; nothing half-done stays in place.
    """
    base = url.rstrip("/")
    folder = cache / "releases" / hashlib.sha256(base.encode()).hexdigest()[:12] / "bin"
    with held(cache / "lock", "getting Kubernetes"):
        folder.mkdir(parents=True, exist_ok=True)
        for program in PROGRAMS:
            if not (folder / program).exists():
                say(f"downloading {base}/{program}")
                _fetch(base, program, folder)
    return folder


def _fetch(base: str, program: str, folder: Path) -> None:
    partial = folder / f".{program}.partial"
    try:
        with urllib.request.urlopen(f"{base}/{program}.sha256", timeout=_DEADLINE) as answer:
            expected = answer.read(200).decode("ascii", "replace").split()[0]
        with (
            urllib.request.urlopen(f"{base}/{program}", timeout=_DEADLINE) as answer,
            partial.open("wb") as output,
        ):
            shutil.copyfileobj(answer, output, 1 << 20)
    except (OSError, IndexError, ValueError) as error:
        raise BuildFailed(
            f"can't download {program} from {base} ({error}); mend K8S_RELEASE_URL, "
            f"or unset it to build Kubernetes from Debian's source package"
        ) from error
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        partial.unlink()
        raise BuildFailed(f"{base}/{program} has SHA-256 {found}, its .sha256 file says {expected}")
    partial.chmod(0o755)
    partial.rename(folder / program)
