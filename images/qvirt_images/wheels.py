"""Python packages as wheels, chosen by hash and unpacked; nothing of them runs."""

from __future__ import annotations

import importlib.util
import stat
import sys
import zipfile
from pathlib import Path

from qvirt_images.errors import BuildError
from qvirt_images.tools import run
from qvirt_images.tree import Tree

_ROOT = Path(__file__).resolve().parents[2]
#: Debian 12's Python, whatever this machine's is, and the tags of a C library that it has.
_TARGET = (
    "--python-version=3.11",
    "--implementation=cp",
    *(f"--platform={tag}_x86_64" for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")),
)


def unpack(requirements: Path, cache: Path, tree: Tree, site: str) -> None:
    """Add the wheels of a requirements file with hashes below the directory `site` of a tree.

    Raises BuildError if pip is missing, or finds no wheel with that hash.
    """
    wheels = cache / "wheels" / requirements.stem
    wheels.mkdir(parents=True, exist_ok=True)
    run(
        _python_with_pip(),
        *("-m", "pip", "--disable-pip-version-check", "download", "--no-deps"),
        *("--only-binary=:all:", "--require-hashes", f"--find-links={wheels}"),
        *_TARGET,
        f"--dest={wheels}",
        f"--requirement={requirements}",
    )
    for name, version in _pinned(requirements):
        with zipfile.ZipFile(_wheel(wheels, name, version)) as wheel:
            for entry in wheel.infolist():
                if not entry.is_dir() and _wanted(entry.filename):
                    executable = (entry.external_attr >> 16) & stat.S_IXUSR
                    mode = 0o755 if executable else 0o644
                    tree.file(f"{site}/{entry.filename}", wheel.read(entry), mode)


def _wanted(path: str) -> bool:
    if ".data/" in path or path.endswith((".pyi", ".pyx", ".pxd", ".c", ".h", "RECORD")):
        return False
    return "/tests/" not in path


def _pinned(requirements: Path) -> list[tuple[str, str]]:
    lines = [
        line.split()[0] for line in requirements.read_text().splitlines() if line[:1].isalpha()
    ]
    return [(name, version) for name, _, version in (line.partition("==") for line in lines)]


def _wheel(wheels: Path, name: str, version: str) -> Path:
    stem = f"{name.replace('-', '_')}-{version}-"
    found = [file for file in wheels.iterdir() if file.name.lower().startswith(stem)]
    if len(found) != 1:
        raise BuildError(
            f"{wheels}: {len(found)} wheels of {name} {version}; remove that directory"
        )
    return found[0]


def _python_with_pip() -> str:
    if importlib.util.find_spec("pip") is not None:
        return sys.executable
    own = _ROOT / ".venv" / "bin" / "python"
    if own.exists():
        return str(own)
    raise BuildError("python3 has no pip: apt-get install python3-pip")
