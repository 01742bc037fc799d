"""The demo guest: Debian's kernel, busybox and dropbear in an initramfs, on a small real disk.

Two flavours: i386 with the 686 kernel, which boots in 64 MB of memory, and amd64 with the cloud
kernel, which boots by BIOS, by UEFI (with Secure Boot too) and as a kernel for microvm.
"""

from __future__ import annotations

import contextlib
import gzip
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qvirt_images import disk, oci
from qvirt_images.apt import Archive, Package
from qvirt_images.modules import add_modules
from qvirt_images.tools import run
from qvirt_images.tree import Tree, cpio, member

SOURCE = Path(__file__).resolve().parent.parent / "guest"
TOOLS = (*disk.TOOLS, "apt-get", "dpkg-deb", "depmod")
_SHARED_LIBRARIES = {
    "libc6": ("libc.so.6", "libm.so.6"),
    "libcrypt1": ("libcrypt.so.1",),
    "libgmp10": ("libgmp.so.10",),
    "libtomcrypt1": ("libtomcrypt.so.1",),
    "libtommath1": ("libtommath.so.1",),
    "zlib1g": ("libz.so.1",),
}
# Package -> program in it -> its place in the guest. netcat: busybox's knows no UDP. ioping: busybox has nothing that
# reads and writes a disk at random places, around the page cache.
_PROGRAMS: Mapping[str, Mapping[str, str]] = {
    "dropbear-bin": {
        "usr/sbin/dropbear": "bin/dropbear",
        "usr/bin/dropbearkey": "bin/dropbearkey",
    },
    "netcat-traditional": {"bin/nc.traditional": "bin/nc.traditional"},
    "ioping": {"usr/bin/ioping": "bin/ioping"},
}
# Package -> its program, signed by Debian's Secure Boot key.
EFI_PACKAGES = {
    "shim-signed": "usr/lib/shim/shimx64.efi.signed",
    "grub-efi-amd64-signed": "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
}


@dataclass(frozen=True)
class Flavour:
    """What differs between the two guests."""

    name: str
    architecture: str
    kernel: str
    triplet: str
    loader: str
    efi: bool
    summary: str


FLAVOURS: Mapping[str, Flavour] = {
    flavour.name: flavour
    for flavour in (
        Flavour(
            "demo-guest",
            "i386",
            "linux-image-686",
            "i386-linux-gnu",
            "lib/ld-linux.so.2",
            efi=False,
            summary="32-bit kernel and busybox: boots in 64 MB of memory, by BIOS, with all of QEMU's devices",
        ),
        Flavour(
            "demo-guest-amd64",
            "amd64",
            "linux-image-cloud-amd64",
            "x86_64-linux-gnu",
            "lib64/ld-linux-x86-64.so.2",
            efi=True,
            summary="64-bit cloud kernel and busybox: from 128 MiB, by BIOS, UEFI or directly (microvm)",
        ),
    )
}


def outputs(name: str) -> tuple[str, ...]:
    """File names that a build of the flavour leaves in the output directory."""
    return tuple(f"{name}.{suffix}" for suffix in ("qcow2", "oci.tar", "vmlinuz", "initrd"))


def recipe_files(images: Path) -> list[Path]:
    """Files below `images` that decide about a demo guest."""
    code = ("apt", "demo_guest", "disk", "modules", "oci", "tools", "tree")
    guest = [file for file in (images / "guest").rglob("*") if file.is_file()]
    return guest + [images / "qvirt_images" / f"{name}.py" for name in code]


def packages(flavour: Flavour, archive: Archive) -> list[Package]:
    """Every package that goes into the guest, at the version that the archive offers now."""
    names = [archive.behind(flavour.kernel), "busybox-static", *_PROGRAMS, *_SHARED_LIBRARIES]
    if flavour.efi:
        names += EFI_PACKAGES
    return list(archive.resolve(names).values())


def build(
    flavour: Flavour, debs: Mapping[str, Path], output: Path, say: Callable[[str], None]
) -> None:
    """Build disk, containerDisk, kernel and initrd of a flavour into an existing directory."""
    kernel_package = next(name for name in debs if name.startswith("linux-image-"))
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=output)))
        opened = {name: stack.enter_context(contents(deb, scratch)) for name, deb in debs.items()}
        say("initramfs")
        kernel = opened[kernel_package]
        vmlinuz = _kernel_image(kernel)
        initrd = compress(cpio(_root(flavour, opened, kernel, say)))
        say(f"disk: kernel {len(vmlinuz) // 1024} KiB, initramfs {len(initrd) // 1024} KiB")
        files = _boot_files(flavour, opened, vmlinuz, initrd)
        qcow2 = output / f"{flavour.name}.qcow2"
        disk.ext4(scratch / "data.ext4", label="qvirt-data", size_mib=32)
        disk.build_disk(qcow2, scratch, files, scratch / "data.ext4", boot_mib=40)
    (output / f"{flavour.name}.vmlinuz").write_bytes(vmlinuz)
    (output / f"{flavour.name}.initrd").write_bytes(initrd)
    say("containerDisk")
    oci.pack(
        qcow2,
        output / f"{flavour.name}.oci.tar",
        name=f"{flavour.name}:latest",
        title=f"qvirt {flavour.name}",
    )


def compress(data: bytes) -> bytes:
    """Pack an initramfs. gzip: under emulation it unpacks 1.2 s sooner than xz, for 1.1 MiB more."""
    return gzip.compress(data, 9, mtime=0)


@contextlib.contextmanager
def contents(deb: Path, scratch: Path) -> Iterator[tarfile.TarFile]:
    """The files of a package, for random access."""
    with tempfile.TemporaryFile(dir=scratch) as plain:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], stdout=plain, check=True)
        plain.seek(0)
        with tarfile.open(fileobj=plain) as archive:
            yield archive


def _kernel_image(package: tarfile.TarFile) -> bytes:
    (name,) = [name for name in package.getnames() if name.startswith("./boot/vmlinuz-")]
    return member(package, name.removeprefix("./"))


def _root(
    flavour: Flavour,
    opened: Mapping[str, tarfile.TarFile],
    kernel: tarfile.TarFile,
    say: Callable[[str], None],
) -> Tree:
    tree = Tree()
    for path in ("dev", "proc", "sys", "run", "tmp", "root", "mnt", "data", "etc/qvirt"):
        tree.directory(path)
    # The kernel opens it for the first process, before anything is mounted.
    tree.character_device("dev/console", 5, 1)
    busybox = member(opened["busybox-static"], "bin/busybox")
    tree.file("bin/busybox", busybox, 0o755)
    for applet in _applets(busybox):
        tree.link(f"bin/{applet}", "busybox")
    tree.link("sbin", "bin")
    tree.link("init", "bin/busybox")
    _programs(tree, flavour, opened)
    tree.overlay(SOURCE / "rootfs")
    absent = add_modules(tree, kernel, _lines("modules.txt"))
    if absent:
        say(f"this kernel has no module {', '.join(absent)}")
    return tree


def _lines(name: str) -> list[str]:
    """Lines of a file of the recipe, comments left out."""
    text = (SOURCE / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _applets(busybox: bytes) -> list[str]:
    # busybox takes a program name that begins with its own for itself, any other for an applet.
    with tempfile.NamedTemporaryFile(prefix="busybox", delete=False) as stream:
        stream.write(busybox)
    program = Path(stream.name)
    try:
        program.chmod(stat.S_IRWXU)
        return [line for line in run(program, "--list").split() if line != "busybox"]
    finally:
        program.unlink()


def _programs(tree: Tree, flavour: Flavour, opened: Mapping[str, tarfile.TarFile]) -> None:
    for package, programs in _PROGRAMS.items():
        for source, target in programs.items():
            tree.file(target, member(opened[package], source), 0o755)
    for name, libraries in _SHARED_LIBRARIES.items():
        for library in libraries:
            for directory in ("lib", "usr/lib"):
                path = f"{directory}/{flavour.triplet}/{library}"
                with contextlib.suppress(KeyError):
                    tree.file(f"lib/{library}", member(opened[name], path), 0o755)
    loader = f"lib/{flavour.triplet}/{flavour.loader.rpartition('/')[2]}"
    tree.file(flavour.loader, member(opened["libc6"], loader), 0o755)


def _boot_files(
    flavour: Flavour, opened: Mapping[str, tarfile.TarFile], vmlinuz: bytes, initrd: bytes
) -> dict[str, bytes]:
    cmdline = " ".join(_lines("cmdline"))
    files = {"vmlinuz": vmlinuz, "initrd": initrd} | disk.bios_boot(cmdline)
    if flavour.efi:
        shim, grub = (member(opened[name], path) for name, path in EFI_PACKAGES.items())
        files |= disk.uefi_boot(cmdline, shim, grub)
    return files
