"""A bootable disk without root, loop devices or mounts: MBR, FAT partition, ext4 partition.

The first partition has type EF and is active: BIOS boots it through syslinux, UEFI takes it as
its system partition. The second holds data that survives reboots.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from qvirt_images.tools import EPOCH, run

SECTOR = 512
MIB = 1024 * 1024
_MBR_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")
_DISK_SIGNATURE = 0x71766D31
_FAT_SERIAL = "71766D32"
_EXT4_UUID = "71766d33-0000-4000-8000-000000000001"

TOOLS = ("mkfs.fat", "mcopy", "mmd", "mke2fs", "syslinux", "qemu-img", str(_MBR_CODE))


def build_disk(
    output: Path, scratch: Path, files: Mapping[str, bytes], *, boot_mib: int, data_mib: int
) -> None:
    """Write a qcow2 disk to `output`: `files` on the FAT partition, an empty ext4 named qvirt-data.

    `scratch` is an existing empty directory on a file system with room for the raw disk.
    """
    fat = scratch / "boot.fat"
    data = scratch / "data.ext4"
    raw = scratch / "disk.raw"
    boot_start, data_start = MIB, MIB + boot_mib * MIB
    _fat(fat, scratch, files, boot_mib, boot_start // SECTOR)
    _ext4(data, data_mib)
    with raw.open("wb") as disk:
        disk.write(_mbr(boot_start, boot_mib * MIB, data_start, data_mib * MIB))
        for start, part in ((boot_start, fat), (data_start, data)):
            disk.seek(start)
            disk.write(part.read_bytes())
        disk.truncate(data_start + data_mib * MIB)
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, output)
    for file in (fat, data, raw):
        file.unlink()


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


def _ext4(image: Path, size_mib: int) -> None:
    with image.open("wb") as stream:
        stream.truncate(size_mib * MIB)
    run(
        "mke2fs",
        *("-q", "-t", "ext4", "-m", "0", "-L", "qvirt-data", "-U", _EXT4_UUID),
        *("-E", f"hash_seed={_EXT4_UUID},root_owner=0:0,lazy_itable_init=0,nodiscard"),
        image,
    )


__all__ = ["EPOCH", "MIB", "TOOLS", "build_disk"]
