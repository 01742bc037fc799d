"""The images that qvirt itself runs from: launcher and operator, both on the same small Python."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from qvirt_images import holder, python_root, wheels
from qvirt_images.apt import Archive, Package
from qvirt_images.debian_root import Packages, base
from qvirt_images.layers import Layer, Program, pack
from qvirt_images.python_root import SITE
from qvirt_images.tree import Tree

TOOLS = ("apt-get", "dpkg-deb", holder.COMPILER)
_IMAGES = Path(__file__).resolve().parent.parent
_ROOT = _IMAGES.parent
_CODE = (
    "apt",
    "compile_modules",
    "debian_root",
    "elf",
    "holder",
    "layers",
    "oci",
    "python_root",
    "system_image",
    "tools",
    "tree",
    "wheels",
)
_ENVIRONMENT = {"LANG": "C.UTF-8", "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
#: The operator's processes live long, and streams pass through them: what glibc's malloc gets back it shall give back
#: (mallopt(3)). By default a freed buffer raises the size from which buffers are mappings of their own, to 32 MiB in the end, and
#: each thread has a heap for itself; so heaps grow for hours.
_MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}

#: QEMU, what it loads at run time and does not name as a library, its firmware; ROMs for booting from the network.
_QEMU_FILES = (
    "usr/bin/qemu-system-x86_64",
    *(f"usr/lib/x86_64-linux-gnu/qemu/{name}.so" for name in ("accel-tcg-x86_64", "hw-display-virtio-vga")),
    *(f"usr/lib/x86_64-linux-gnu/qemu/hw-display-virtio-gpu{end}.so" for end in ("", "-pci")),
    "usr/share/qemu/keymaps/*",
    *(f"usr/share/qemu/{name}.bin" for name in ("kvmvapic", "linuxboot*", "multiboot*", "pvh")),
    *(f"usr/share/seabios/{name}.bin" for name in ("bios-256k", "bios-microvm", "vgabios-*")),
    *(f"usr/lib/ipxe/qemu/efi-{card}.rom" for card in ("virtio", "e1000", "e1000e", "ne2k_pci", "pcnet", "rtl8139")),
    *(f"usr/share/OVMF/OVMF_{part}_4M{kind}.fd" for part, kinds in
      (("CODE", ("", ".secboot")), ("VARS", ("", ".ms"))) for kind in kinds),
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """What makes one of the images."""

    name: str
    summary: str
    #: The file of Python packages.
    requirements: str
    debs: tuple[str, ...]
    #: Files of the Debian packages beside Python's, in a layer of their own.
    files: tuple[str, ...]
    #: What that layer is.
    title: str
    without: tuple[str, ...]
    own: tuple[str, ...]
    skipped: tuple[str, ...]
    commands: Mapping[str, str]
    program: Program
    #: Packages of which files are taken, and nothing of what they depend on.
    alone: tuple[str, ...] = ()
    #: Whether it has the program of a pod's sidecars.
    holder: bool = False
    #: Whether modules know their own documentation.
    docstrings: bool = True
    #: Whether other people's modules come with their sources.
    sources: bool = True
    #: More names for files: link -> target.
    links: Mapping[str, str] = field(default_factory=dict)


LAUNCHER = Recipe(
    name="launcher",
    summary="image of the pods that guests run in: QEMU, its firmware, a small Python and virt-launcher",
    requirements="launcher",
    debs=("qemu-system-x86", "seabios", "ipxe-qemu", "ovmf"),
    files=_QEMU_FILES,
    title="QEMU and its firmware",
    without=python_root.LAUNCHER_UNUSED,
    own=("crds/qvirt_crds", "qmp/qvirt_qmp", "netsetup/qvirt_netsetup", "launcher/qvirt_launcher"),
    skipped=("qvirt_launcher/cli/",),
    commands={
        "virt-launcher": "qvirt_launcher.main",
        "virt-probe": "qvirt_launcher.virt_probe",
        "virt-console": "qvirt_launcher.virt_console",
    },
    program=Program(("virt-launcher",), "107:107", _ENVIRONMENT),
    holder=True,
    docstrings=False,
    sources=False,
)
#: Debian's build of QEMU for microvm alone: virtio-mmio, no emulation, no firmware but qboot's and the kernel loaders.
MICROVM = replace(
    LAUNCHER,
    name="launcher-microvm",
    summary="the launcher's image for guests of machine type microvm on nodes with KVM, half the size",
    debs=("qemu-system-x86", "seabios"),
    files=(
        *("usr/bin/qemu-system-x86_64-microvm", "usr/share/qemu/qboot.rom"),
        *(f"usr/share/qemu/{name}.bin" for name in ("linuxboot*", "pvh")),
        "usr/share/seabios/bios-microvm.bin",
    ),
    links={"usr/bin/qemu-system-x86_64": "qemu-system-x86_64-microvm"},
)
OPERATOR = Recipe(
    name="operator",
    summary="image of virt-controller, virt-api and virt-handler: Python, its Kubernetes packages and ours",
    requirements="operator",
    debs=("libstdc++6",),
    alone=("novnc",),
    files=("usr/share/novnc/core/*.js", "usr/share/novnc/vendor/pako/lib/*.js"),
    title="noVNC's modules",
    without=(),
    own=(
        *("crds/qvirt_crds", "qmp/qvirt_qmp", "netsetup/qvirt_netsetup", "launcher/qvirt_launcher"),
        *("operator/qvirt_kube", "operator/qvirt_operator", "operator/qvirt_handler"),
        *("operator/qvirt_api", "operator/qvirt_pods"),
    ),
    skipped=("qvirt_launcher/cli/",),
    commands={},
    program=Program(("python3", "-m", "qvirt_operator"), "1000:1000", _ENVIRONMENT | _MALLOC),
    docstrings=False,
    sources=False,
)
RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (LAUNCHER, MICROVM, OPERATOR)}


def outputs(name: str) -> tuple[str, ...]:
    """File names that a build leaves in the output directory."""
    return (f"{name}.oci.tar",)


def recipe_files(recipe: Recipe, images: Path) -> list[Path]:
    """Files of this tree that decide about the image."""
    own = [file for package in recipe.own for file in _sources(images.parent / package)]
    code = [images / "qvirt_images" / f"{name}.py" for name in _CODE]
    program = [holder.SOURCE] if recipe.holder else []
    return [*own, *code, *program, images / "python" / f"{recipe.requirements}.txt"]


def packages(recipe: Recipe, archive: Archive) -> list[Package]:
    """Debian's packages with all that they depend on; of most of them only libraries are taken."""
    whole = archive.closure([*recipe.debs, *python_root.PACKAGES])
    return [*whole, *(archive.resolve(recipe.alone).values() if recipe.alone else ())]


def build(
    recipe: Recipe,
    debs: Mapping[str, Path],
    cache: Path,
    output: Path,
    say: Callable[[str], None],
) -> None:
    """Write the oci-archive into an existing directory."""
    say(f"unpacking {len(debs)} Debian packages")
    available = Packages(debs)
    layers = [Layer("Debian's Python", base())]
    python = layers[0].tree
    python_root.add_python(python, available, without=recipe.without)
    say("Python packages")
    libraries, own = Tree(), Tree()
    wheels.unpack(_IMAGES / "python" / f"{recipe.requirements}.txt", cache, libraries, SITE)
    available.take_libraries(python, libraries)
    python_root.add_own(own, [_ROOT / package for package in recipe.own], recipe.skipped)
    if recipe.files:
        layers.append(Layer(recipe.title, _beside_python(available, recipe.files, python)))
    for link, target in recipe.links.items():
        layers[-1].tree.link(link, target)
    if recipe.holder:
        own.file("usr/lib/qvirt/holder", _holder(output), 0o755)
    for command, module in recipe.commands.items():
        own.file(f"usr/bin/{command}", _script(module), 0o755)
    layers += [Layer("Python packages", libraries), Layer("qvirt", own)]
    say("compiling")
    python_root.compile_all(
        _union(layers),
        output,
        [python, libraries, own],
        docstrings=recipe.docstrings,
        sources=recipe.sources,
    )
    say("packing")
    sizes = pack(
        layers,
        output / f"{recipe.name}.oci.tar",
        name=f"localhost/qvirt/{recipe.name}:latest",
        program=recipe.program,
    )
    for line in _report(layers, sizes):
        say(line)


def _beside_python(available: Packages, files: Iterable[str], below: Tree) -> Tree:
    """The files and their libraries that are not in the layer below; ROMs where QEMU looks for them."""
    whole = Tree(dict(below.nodes))
    available.take(whole, available.matching(files))
    for path in [
        path for path in whole.nodes if path.startswith(("usr/share/seabios/", "usr/lib/ipxe/"))
    ]:
        node = whole.nodes[path]
        if path.endswith((".bin", ".rom")):
            whole.link(f"usr/share/qemu/{path.rpartition('/')[2]}", f"/{path}")
            assert node.data, path
    return Tree({path: node for path, node in whole.nodes.items() if path not in below.nodes})


def _holder(scratch: Path) -> bytes:
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        program = Path(name) / "holder"
        holder.compile_holder(program)
        return program.read_bytes()


def _script(module: str) -> bytes:
    """Isolated and without `site`, which has nothing to find in an image and would stay in memory."""
    lines = (
        "#!/usr/bin/python3 -BIS",
        "import sys",
        f"sys.path.append('/{SITE}')",
        f"from {module} import main",
        "sys.exit(main())",
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _union(layers: Iterable[Layer]) -> Tree:
    return Tree({path: node for layer in layers for path, node in layer.tree.nodes.items()})


def _sources(package: Path) -> list[Path]:
    return [
        file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    ]


def _report(layers: list[Layer], sizes: list[int]) -> Iterable[str]:
    """What takes the space: each layer, packed and plain, with its largest directories."""
    mib = 1024**2
    for layer, size in zip(layers, sizes, strict=True):
        plain: dict[str, int] = {}
        for path, node in layer.tree.nodes.items():
            place = "/".join(path.split("/")[:-1][:4])
            key = path if len(node.data) > 2 * mib else place
            plain[key] = plain.get(key, 0) + len(node.data)
        yield f"{size / mib:6.1f} MiB packed, {sum(plain.values()) / mib:6.1f} plain: {layer.title}"
        for place, length in sorted(plain.items(), key=lambda item: -item[1])[:8]:
            yield f"              {length / mib:14.1f} {place}"
    yield f"{sum(sizes) / mib:6.1f} MiB packed in all"
