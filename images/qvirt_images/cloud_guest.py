"""The cloud guest: Debian with systemd, cloud-init, the QEMU guest agent and an ssh server.

The root comes from mmdebstrap with the machine's own sources; kernel and initrd stand on the
FAT partition beside the boot loaders, as in the demo guest. Its contents follow the archive, and
services write random seeds and ids at installation, so it is not reproducible to the byte.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from qvirt_images import disk, oci
from qvirt_images.apt import Archive, Package
from qvirt_images.demo_guest import EFI_PACKAGES, contents
from qvirt_images.errors import BuildError
from qvirt_images.tools import run
from qvirt_images.tree import member

NAME = "cloud-guest"
OUTPUTS = tuple(f"{NAME}.{suffix}" for suffix in ("qcow2", "oci.tar"))
TOOLS = (*disk.TOOLS, "apt-get", "dpkg-deb", "mmdebstrap")
_SOURCE = Path(__file__).resolve().parent.parent / "cloud"
_INSTALLED = (
    "systemd-sysv",
    "systemd-resolved",
    "udev",
    "dbus",
    "kmod",
    "iproute2",
    "iputils-ping",
    "netbase",
    "sudo",
    "openssh-server",
    "cloud-init",
    "cloud-guest-utils",
    "fdisk",
    "e2fsprogs",
    "qemu-guest-agent",
    "initramfs-tools",
    "linux-image-cloud-amd64",
)
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
# Work that a short-lived guest does at a bad time.
_IDLE_WORK = "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_reap.service"
_CMDLINE = "root=LABEL=qvirt-root ro console=tty0 console=ttyS0,115200"
_ROOT_MIB = 2048


def recipe_files(images: Path) -> list[Path]:
    """Files below `images` that decide about the cloud guest."""
    code = ("apt", "cloud_guest", "disk", "oci", "tools", "tree")
    guest = [file for file in (images / "cloud").rglob("*") if file.is_file()]
    return guest + [images / "qvirt_images" / f"{name}.py" for name in code]


def packages(archive: Archive) -> list[Package]:
    """The packages asked for; their dependencies are chosen at build time."""
    return list(archive.resolve([*_INSTALLED, *EFI_PACKAGES]).values())


def build(
    archive: Archive, packages: list[Package], output: Path, say: Callable[[str], None]
) -> None:
    """Build disk and containerDisk into an existing directory.

    Raises BuildError when not root: the root's files need their owners.
    """
    if os.geteuid() != 0:
        raise BuildError(f"{NAME} needs root for the owners of its files; run it with sudo")
    with tempfile.TemporaryDirectory(dir=output) as name:
        scratch = Path(name)
        root = scratch / "root"
        loaders = archive.fetch([package for package in packages if package.name in EFI_PACKAGES])
        say("mmdebstrap, some minutes")
        _install(root, scratch, archive.sources)
        say("disk")
        _make_disk(root, loaders, scratch, output / f"{NAME}.qcow2")
    say("containerDisk")
    oci.pack(
        output / f"{NAME}.qcow2",
        output / f"{NAME}.oci.tar",
        name=f"{NAME}:latest",
        title=f"qvirt {NAME}",
    )


def _install(root: Path, scratch: Path, sources: Path | None) -> None:
    transport = scratch / "apt.conf"
    # mmdebstrap's apt is a fresh one: proxies and the like are handed on, for the time of the build.
    transport.write_text(run("apt-config", "dump", "Acquire::http", "Acquire::https"))
    run(
        # What it mounts goes with it, also when it is killed: nobody's rm follows a mount into /sys.
        *("unshare", "--mount", "--"),
        "mmdebstrap",
        *("--mode=root", "--variant=minbase", "--architectures=amd64"),
        f"--include={','.join(_INSTALLED)}",
        f"--aptopt={transport}",
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
        # Before packages are configured: the initrd is then made once, with the right modules.
        f'--extract-hook=cp -rT {shlex.quote(str(_SOURCE / "rootfs"))} "$1"',
        '--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/apt/sources.list.d/*',
        '--customize-hook=: >"$1"/etc/apt/sources.list; : >"$1"/etc/machine-id',
        '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*_key* "$1"/etc/resolv.conf',
        '--customize-hook=ln -s ../run/systemd/resolve/stub-resolv.conf "$1"/etc/resolv.conf',
        # mmdebstrap hands the building machine's name on.
        '--customize-hook=echo cloud-guest >"$1"/etc/hostname',
        '--customize-hook=chroot "$1" systemctl enable systemd-networkd systemd-resolved',
        f'--customize-hook=chroot "$1" systemctl mask {_IDLE_WORK}',
        _suite(),
        root,
        *_source_lists(sources),
        deadline=1800,
    )


def _suite() -> str:
    text = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=\"?([a-z]+)", text, re.M)
    if found is None:
        raise BuildError("/etc/os-release names no VERSION_CODENAME: build on Debian 12 or later")
    return found[1]


def _source_lists(sources: Path | None) -> list[Path]:
    if sources is not None:
        return [sources.resolve()]
    single = Path("/etc/apt/sources.list")
    parts = Path("/etc/apt/sources.list.d")
    found = [file for file in sorted(parts.iterdir()) if file.suffix in (".list", ".sources")]
    if single.exists() and single.stat().st_size:
        found.insert(0, single)
    if not found:
        raise BuildError("no sources of apt found; give a list of them with --sources FILE")
    return found


def _make_disk(root: Path, debs: Mapping[str, Path], scratch: Path, qcow2: Path) -> None:
    (kernel,) = root.glob("boot/vmlinuz-*")
    (initrd,) = root.glob("boot/initrd.img-*")
    loaders = []
    for name, path in EFI_PACKAGES.items():
        with contents(debs[name], scratch) as package:
            loaders.append(member(package, path))
    files = {"vmlinuz": kernel.read_bytes(), "initrd": initrd.read_bytes()}
    files |= disk.bios_boot(_CMDLINE) | disk.uefi_boot(_CMDLINE, *loaders)
    second = scratch / "root.ext4"
    disk.ext4(second, label="qvirt-root", size_mib=_ROOT_MIB, root=root)
    disk.build_disk(qcow2, scratch, files, second, boot_mib=80)
