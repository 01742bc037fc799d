"""What every example becomes, word by word; and what is the same whatever the words are."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.load import load_manifests
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.machine import build_machine
from qvirt_launcher.offline import offline_facts
from qvirt_launcher.render import render

if TYPE_CHECKING:
    from tests.conftest import Golden

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UUID = "5d307ca9-b3ef-428c-8861-06e72d69f223"


def instances(path: Path) -> tuple[VirtualMachineInstance, ...]:
    loaded = load_manifests(path.read_text(), path.name).instances
    return tuple(apply_defaults(vmi, new_uuid=lambda: UUID) for vmi in loaded)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_argv_of_every_example(path: Path, golden: Golden) -> None:
    """Rendered as ``qvirt render`` does, under KVM. Read the diff before accepting it: guests see it."""
    pages = []
    for vmi in instances(path):
        argv = render(build_machine(vmi, offline_facts(vmi, now=NOW)))
        assert not any("\n" in argument for argument in argv)
        pages.append("\n".join(argv) + "\n")
    golden.check(f"argv/{path.stem}.txt", "\n".join(pages))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rendering_is_a_function(path: Path) -> None:
    for vmi, again in zip(instances(path), instances(path), strict=True):
        first = render(build_machine(vmi, offline_facts(vmi, now=NOW)))
        assert first == render(build_machine(again, offline_facts(again, now=NOW)))


def test_there_are_examples() -> None:
    assert EXAMPLES / "seed-vm.yaml" in FILES
