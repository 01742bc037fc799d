"""What can be built: the table of targets, each bound to its recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qvirt_images import cloud_guest, demo_guest, system_image
from qvirt_images.apt import Archive, Package
from qvirt_images.demo_guest import Flavour
from qvirt_images.system_image import Recipe


@dataclass(frozen=True)
class Target:
    """One thing to build; `outputs` are the files that `build` leaves in its output directory."""

    name: str
    summary: str
    architecture: str
    outputs: tuple[str, ...]
    tools: tuple[str, ...]
    recipe_files: Callable[[Path], list[Path]]
    packages: Callable[[Archive], list[Package]]
    build: Callable[[Archive, list[Package], Path, Callable[[str], None]], None]


def _demo_target(flavour: Flavour) -> Target:
    return Target(
        flavour.name,
        flavour.summary,
        flavour.architecture,
        demo_guest.outputs(flavour.name),
        demo_guest.TOOLS,
        demo_guest.recipe_files,
        lambda archive: demo_guest.packages(flavour, archive),
        lambda archive, packages, output, say: demo_guest.build(
            flavour, archive.fetch(packages), output, say
        ),
    )


_CLOUD = Target(
    cloud_guest.NAME,
    "Debian with systemd, cloud-init, guest agent and ssh: give it 1 GiB; needs root, takes minutes",
    "amd64",
    cloud_guest.OUTPUTS,
    cloud_guest.TOOLS,
    cloud_guest.recipe_files,
    cloud_guest.packages,
    cloud_guest.build,
)


def _system_target(recipe: Recipe) -> Target:
    return Target(
        recipe.name,
        recipe.summary,
        "amd64",
        system_image.outputs(recipe.name),
        system_image.TOOLS,
        lambda images: system_image.recipe_files(recipe, images),
        lambda archive: system_image.packages(recipe, archive),
        lambda archive, packages, output, say: system_image.build(
            recipe, archive.fetch(packages), archive.cache, output, say
        ),
    )


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        *map(_demo_target, demo_guest.FLAVOURS.values()),
        _CLOUD,
        *map(_system_target, system_image.RECIPES.values()),
    )
}
