"""What can be built: the table of targets, each bound to its recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qvirt_images import demo_guest
from qvirt_images.apt import Archive, Package
from qvirt_images.demo_guest import Flavour


@dataclass(frozen=True)
class Target:
    """One thing to build. `build` gets what `resolve` found, and an existing output directory."""

    name: str
    summary: str
    outputs: tuple[str, ...]
    tools: tuple[str, ...]
    recipe_files: Callable[[Path], list[Path]]
    resolve: Callable[[Path, Path | None], list[Package]]
    build: Callable[[list[Package], Path, Callable[[str], None]], None]


def _demo_target(flavour: Flavour) -> Target:
    archives: list[Archive] = []

    def resolve(cache: Path, sources: Path | None) -> list[Package]:
        archive = Archive(cache, flavour.architecture, sources)
        archives[:] = [archive]
        archive.update()
        return demo_guest.packages(flavour, archive)

    def build(packages: list[Package], output: Path, say: Callable[[str], None]) -> None:
        say(f"{len(packages)} packages")
        demo_guest.build(flavour, archives[0].fetch(packages), output, say)

    return Target(
        flavour.name,
        flavour.summary,
        demo_guest.outputs(flavour.name),
        demo_guest.TOOLS,
        demo_guest.recipe_files,
        resolve,
        build,
    )


TARGETS: Mapping[str, Target] = {
    target.name: target for target in map(_demo_target, demo_guest.FLAVOURS.values())
}
