"""A bootable disk without root, loop devices or mounts: MBR, FAT partition, ext4 partition.

The first partition has type EF and is active: BIOS boots it through syslinux, UEFI takes it as
its system partition. The second is an ext4 file system.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from qvirt_images.tools import run

SECTOR = 512
MIB = 1024 * 1024
_MBR_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")
_DISK_SIGNATURE = 0x71766D31
_FAT_SERIAL = "71766D32"
_EXT4_UUID = "71766d33-0000-4000-8000-000000000001"

TOOLS = ("mkfs.fat", "mcopy", "mmd", "mke2fs", "syslinux", "qemu-img", str(_MBR_CODE))


def build_disk(
    output: Path, scratch: Path, files: Mapping[str, bytes], second: Path, *, boot_mib: int
) -> None:
    """Write a qcow2 disk: `files` on the FAT partition, the image `second` as the other partition.

    `scratch` is an existing directory on a file system with room for the raw disk.
    """
    fat = scratch / "boot.fat"
    raw = scratch / "disk.raw"
    boot_start, second_start = MIB, MIB + boot_mib * MIB
    second_size = second.stat().st_size
    _fat(fat, scratch, files, boot_mib, boot_start // SECTOR)
    with raw.open("wb") as disk:
        disk.write(_mbr(boot_start, boot_mib * MIB, second_start, second_size))
        for start, part in ((boot_start, fat), (second_start, second)):
            _copy_sparse(part, disk, start)
        disk.truncate(second_start + second_size)
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, output)
    fat.unlink()
    raw.unlink()


def ext4(image: Path, *, label: str, size_mib: int, root: Path | None = None) -> None:
    """Make an ext4 image, empty or with the files, owners and modes of the directory `root`."""
    with image.open("wb") as stream:
        stream.truncate(size_mib * MIB)
    extended = f"hash_seed={_EXT4_UUID},root_owner=0:0,lazy_itable_init=0,nodiscard"
    contents = () if root is None else ("-d", str(root))
    options = ("-q", "-t", "ext4", "-m", "0", "-L", label, "-U", _EXT4_UUID, "-E", extended)
    run("mke2fs", *options, *contents, image)


def bios_boot(cmdline: str) -> dict[str, bytes]:
    """syslinux's configuration for the files `vmlinuz` and `initrd`."""
    lines = ("SERIAL 0 115200", "DEFAULT linux", "PROMPT 0", "LABEL linux")
    entry = (" LINUX vmlinuz", " INITRD initrd", f" APPEND {cmdline}")
    return {"syslinux.cfg": "\n".join((*lines, *entry, "")).encode()}


def uefi_boot(cmdline: str, shim: bytes, grub: bytes) -> dict[str, bytes]:
    """Debian's signed shim and grub for the files `vmlinuz` and `initrd`; Secure Boot works.

    The path of the configuration is compiled into the signed grub.
    """
    # gfxpayload: grub would look for a graphics mode, which a machine without a screen lacks.
    config = f"set timeout=0\nset gfxpayload=text\nlinux /vmlinuz {cmdline}\ninitrd /initrd\nboot\n"
    return {
        "EFI/BOOT/BOOTX64.EFI": shim,
        "EFI/BOOT/grubx64.efi": grub,
        "EFI/debian/grub.cfg": config.encode(),
    }


def _copy_sparse(source: Path, disk: BinaryIO, start: int) -> None:
    zeros = bytes(MIB)
    with source.open("rb") as stream:
        while chunk := stream.read(MIB):
            if chunk != zeros[: len(chunk)]:
                disk.seek(start)
                disk.write(chunk)
            start += len(chunk)


def _mbr(boot_start: int, boot_size: int, data_start: int, data_size: int) -> bytes:
    def entry(active: int, kind: int, start: int, size: int) -> bytes:
        # FE FF FF: "see the LBA fields", for disks larger than CHS can tell.
        chs = b"\xfe\xff\xff"
        return struct.pack("<B3sB3sII", active, chs, kind, chs, start // SECTOR, size // SECTOR)

    code = _MBR_CODE.read_bytes()[:440].ljust(440, b"\0")
    table = entry(0x80, 0xEF, boot_start, boot_size) + entry(0, 0x83, data_start, data_size)
    return code + struct.pack("<IH", _DISK_SIGNATURE, 0) + table.ljust(64, b"\0") + b"\x55\xaa"


def _fat(
    image: Path, scratch: Path, files: Mapping[str, bytes], size_mib: int, hidden: int
) -> None:
    with image.open("wb") as stream:
        stream.truncate(size_mib * MIB)
    # Hidden sectors: syslinux's boot sector finds the partition's start by them.
    options = ("-F", "16", "-n", "QVIRTBOOT", "-i", _FAT_SERIAL, "-h", str(hidden), "--invariant")
    run("mkfs.fat", *options, image)
    made: set[str] = set()
    for path, data in sorted(files.items()):
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth])
            if directory not in made:
                run("mmd", "-i", image, f"::{directory}")
                made.add(directory)
        source = scratch / "file"
        source.write_bytes(data)
        run("mcopy", "-i", image, source, f"::{path}")
        source.unlink()
    run("syslinux", "--install", image)
