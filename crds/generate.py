"""Write what is generated from the contract: ``crds/*.yaml`` and ``docs/defaults.md``. A test keeps them equal to it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from qvirt_crds import (
    defaults_table,
    devices,
    domain,
    kubevirt,
    replicaset,
    schema,
    v1alpha1,
    v1alpha1_replicaset,
    vm,
    volumes,
)
from qvirt_crds.model import Model

ROOT = Path(__file__).resolve().parent.parent
_COMMENTED = re.compile(r"((?:^ +#:.*\n)+)^ +(\w+):", re.MULTILINE)


def generated() -> dict[Path, str]:
    """Path below the repository's root -> content."""
    header = "# Written by crds/generate.py from the structs in crds/qvirt_crds.\n"
    files = {
        Path("crds") / f"{crd['spec']['names']['plural']}.yaml": header + _yaml(crd)
        for crd in schema.definitions(field_comments())
    }
    return {**files, Path("docs") / "defaults.md": defaults_table.markdown()}


def field_comments() -> dict[tuple[type, str], str]:
    """The ``#:`` comments above the fields of structs, by struct and wire name."""
    found: dict[tuple[type, str], str] = {}
    modules = (devices, domain, kubevirt, replicaset, v1alpha1, v1alpha1_replicaset, vm, volumes)
    for module in modules:
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Model):
                names = {f.name: f.encode_name for f in msgspec.structs.fields(kind)}
                for comment, field in _COMMENTED.findall(inspect.getsource(kind)):
                    text = " ".join(line.strip()[2:].strip() for line in comment.splitlines())
                    found[kind, names[field]] = text
    return found


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _yaml(data: object) -> str:
    """Objects that hold no others on one line: a third of the length."""
    return yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        width=110,
        allow_unicode=True,
        default_flow_style=None,
    )


def main() -> None:
    for path, content in generated().items():
        (ROOT / path).write_text(content)


if __name__ == "__main__":
    main()
