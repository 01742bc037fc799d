"""What our images weigh, next to QEMU with nothing but its libraries and ROMs."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from qvirt_bench import image_root
from qvirt_bench.figures import Figure, Measured

_MB: Final = 1e6
#: What the baseline is made of, in our image: QEMU with what it loads, its firmware for BIOS, and the loader.
_QEMU: Final = ("usr/bin/qemu-system-x86_64",)
_ROMS: Final = ("usr/share/seabios", "usr/share/qemu")
_MODULES: Final = "usr/lib/x86_64-linux-gnu/qemu"


async def measure() -> Measured:
    """Sizes don't vary: one sample each."""
    archive = image_root.archive_of("launcher")
    root = image_root.unpack(archive)
    layers = image_root.layers_of(archive)
    packed = sum(layer.packed for layer in layers) / _MB
    plain = _packed(root, _qemu_alone(root)) / _MB
    operator = image_root.layers_of(image_root.archive_of("operator"))
    figures: tuple[Figure, ...] = (
        _figure(
            "launcher's image, compressed, held against plain QEMU", packed, plain, "ratio", 1.6
        ),
        _figure("launcher's image, compressed", packed, plain, "value", 40.0),
        _figure(
            "operator's image, compressed (controller, api, handler)",
            sum(layer.packed for layer in operator) / _MB,
            plain,
            "value",
            None,
        ),
    )
    rows = [
        (image, layer.title, f"{layer.packed / _MB:.1f}", f"{layer.plain / _MB:.1f}")
        for image, found in (("launcher", layers), ("operator", operator))
        for layer in found
    ]
    notes = ["Compressed as a registry holds them (gzip -9)."]
    try:
        micro = image_root.layers_of(image_root.archive_of("launcher-microvm"))
    except Exception as error:  # noqa: BLE001
        notes.append(f"microvm flavour: {error}")
    else:
        size = sum(layer.packed for layer in micro) / _MB
        figures += (_figure("microvm flavour, compressed", size, packed, "value", 22.0),)
        rows += [
            ("microvm", layer.title, f"{layer.packed / _MB:.1f}", f"{layer.plain / _MB:.1f}")
            for layer in micro
        ]
    return Measured(
        figures=figures,
        notes=tuple(notes),
        table=(("image", "layer", "compressed MB", "plain MB"), *rows),
    )


def _figure(name: str, ours: float, base: float, kind: str, aim: float | None) -> Figure:
    return Figure(
        name=name,
        unit="MB",
        ours=(round(ours, 2),),
        baseline=(round(base, 2),),
        baseline_name="plain QEMU, its libraries and ROMs, compressed the same way",
        kind="ratio" if kind == "ratio" else "value",
        aim=aim,
    )


def _qemu_alone(root: Path) -> list[str]:
    """QEMU, all libraries that the loader finds for it and its modules, and SeaBIOS with the VGA ROMs."""
    modules = [f"{_MODULES}/{name}" for name in sorted(os.listdir(root / _MODULES))]
    loader = "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    found = {*_QEMU, *modules}
    for program in (*_QEMU, *modules):
        listed = subprocess.run(
            ["chroot", str(root), loader, "--list", f"/{program}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
        ).stdout
        for line in listed.splitlines():
            path = next((word for word in line.split() if word.startswith("/")), None)
            if path is not None:
                found.add(os.path.relpath(os.path.realpath(f"{root}{path}"), root))
    for directory in _ROMS:
        for place, _, files in os.walk(root / directory):
            found.update(
                os.path.relpath(os.path.join(place, name), root)
                for name in files
                if not os.path.islink(os.path.join(place, name))
            )
    return sorted(found)


def _packed(root: Path, paths: list[str]) -> int:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in paths:
            data = (root / path).read_bytes()
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return len(gzip.compress(out.getvalue(), 9, mtime=0))
