"""Whether a build is still good: a note beside the outputs of what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from qvirt_images.apt import Package


def recipe_hash(files: Iterable[Path], root: Path) -> str:
    """SHA-256 over names, modes and contents of the files that decide about a build."""
    digest = hashlib.sha256()
    for file in sorted(files):
        data = file.read_bytes()
        executable = bool(file.stat().st_mode & 0o100)
        digest.update(f"{file.relative_to(root)}\0{executable}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def versions(packages: Iterable[Package]) -> dict[str, str]:
    """The packages as `read` returns them."""
    return {f"{p.name}:{p.architecture}": p.version for p in packages}


def _note(output: Path, target: str) -> Path:
    return output / f"{target}.json"


def read(output: Path, target: str, recipe: str, names: Iterable[str]) -> dict[str, str] | None:
    """Package versions of a finished build by this recipe whose outputs are unchanged, or None."""
    try:
        note = json.loads(_note(output, target).read_bytes())
        if note["recipe"] != recipe:
            return None
        for name in names:
            with (output / name).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != note["outputs"][name]:
                    return None
        return dict(note["packages"])
    except (OSError, ValueError, KeyError, TypeError):
        # An interrupted or foreign build leaves anything; building again is always right.
        return None


def write(
    output: Path, target: str, recipe: str, packages: Iterable[Package], names: Iterable[str]
) -> None:
    """Note a finished build; written last, so that an interrupted build is never taken for one."""
    outputs = {}
    for name in names:
        with (output / name).open("rb") as stream:
            outputs[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    note = {
        "recipe": recipe,
        "packages": versions(packages),
        "outputs": outputs,
    }
    _note(output, target).write_text(json.dumps(note, indent=1, sort_keys=True) + "\n")
