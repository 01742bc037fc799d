"""From a volume's backing to QEMU's block graph: ``-blockdev`` nodes, and what the device must say about caching and errors.

Every node is named and every format given: QEMU never looks into a file to learn what it is, and a qcow2 header's idea of
its backing file is overruled. Node names are the guest's names of the disk (QEMU allows them 31 characters).
"""

from __future__ import annotations

from typing import Literal, assert_never

from qvirt_crds.devices import Disk
from qvirt_crds.model import Model
from qvirt_launcher.arguments import Properties, refused
from qvirt_launcher.backing import Backing, Image

Cache = Literal["none", "writethrough", "writeback"]
Aio = Literal["io_uring", "native", "threads"]


class Drive(Model, frozen=True, kw_only=True):
    """A volume as the disk's device attaches it."""

    #: The node to attach, as in the device's ``drive``.
    node: str
    nodes: tuple[Properties, ...]
    cache: Cache
    read_only: bool
    #: A block device of the host, not a file.
    block: bool


def drive(disk: Disk, backing: Backing, node: str, path: str, *, io_uring: bool = False) -> Drive:
    """Plan the nodes of one disk.

    :param node: name of the top node; the others' names start with it.
    :param path: of the disk in the spec, for errors.
    :param io_uring: whether QEMU may use it on this host.
    :raise SpecError: a cache or I/O mode that the file can't do, or sharing of a format that can't be shared.
    """
    read_only = backing.read_only or _read_only(disk)
    cache = _cache(disk, backing, path)
    if disk.shareable and backing.image.format != "raw":
        raise refused(
            f"{path}.shareable", f"a {backing.image.format} image can't be shared: use raw"
        )
    if disk.io == "native" and cache != "none":
        raise refused(f"{path}.io", "native needs cache none, on a file system with direct I/O")
    unmap = disk.cdrom is None and disk.floppy is None
    nodes: list[Properties] = []
    below: str | None = None
    if backing.base is not None:
        below = f"{node}-base"
        asynchronous = disk.io or _asynchronous(backing.base, cache, io_uring, read_only=True)
        nodes += _image(
            *(backing.base, below, cache, asynchronous), read_only=True, unmap=False, backing=None
        )
    asynchronous = disk.io or _asynchronous(backing.image, cache, io_uring, read_only=read_only)
    nodes += _image(
        *(backing.image, node, cache, asynchronous),
        read_only=read_only,
        unmap=unmap,
        backing=below,
    )
    return Drive(
        node=node,
        nodes=tuple(nodes),
        cache=cache,
        read_only=read_only,
        block=backing.image.block,
    )


def _read_only(disk: Disk) -> bool:
    if disk.cdrom is not None:
        return disk.cdrom.readonly is not False
    target = disk.disk or disk.lun or disk.floppy
    return target is not None and target.readonly


def _cache(disk: Disk, backing: Backing, path: str) -> Cache:
    """KubeVirt's rule: none where every file takes O_DIRECT, else writethrough. Sharing allows nothing but none."""
    if disk.shareable and disk.cache not in (None, "none"):
        raise refused(f"{path}.cache", f"{disk.cache} can't be used for a shareable disk: use none")
    if disk.cache == "none" or disk.shareable:
        if not backing.direct:
            raise refused(
                f"{path}.cache",
                f"none needs direct I/O, which the file system of {backing.image.path} doesn't support: "
                "leave it out, or use writethrough or writeback",
            )
        return "none"
    return disk.cache or ("none" if backing.direct else "writethrough")


def _asynchronous(image: Image, cache: Cache, io_uring: bool, *, read_only: bool) -> Aio | None:
    """How QEMU waits for the file; None: by its own threads, which cost a small request a third of its speed.

    native costs least, but makes the caller wait where the file system must find room first, and every disk of its I/O thread
    with it: it is for what has its room already (KubeVirt's rule for claims), and for what is only read. io_uring never makes
    the caller wait; it hands such a write to a thread of the kernel, which costs a small one a twentieth of its speed.
    """
    if cache != "none":
        return None
    if image.block or image.allocated or read_only:
        return "native"
    return "io_uring" if io_uring else None


def _image(
    image: Image,
    node: str,
    cache: Cache,
    asynchronous: Aio | None,
    *,
    read_only: bool,
    unmap: bool,
    backing: str | None,
) -> list[Properties]:
    """Two nodes: the file or device, and the format on it."""
    caching: Properties = {"direct": cache == "none", "no-flush": False}
    discard: Properties = {"discard": "unmap"} if unmap and not read_only else {}
    protocol: Properties = {
        "driver": "host_device" if image.block else "file",
        "node-name": f"{node}-file",
        "filename": image.path,
        **({"aio": asynchronous} if asynchronous else {}),
        "cache": caching,
        "read-only": read_only,
        **discard,
    }
    form: Properties = {
        "driver": image.format,
        "node-name": node,
        "file": f"{node}-file",
        "cache": caching,
        "read-only": read_only,
        **discard,
    }
    match image.format:
        case "qcow2":
            # null: nothing, whatever the image's header says.
            form["backing"] = backing
        case "raw":
            assert backing is None, "a raw image has no backing file"
        case unreachable:
            assert_never(unreachable)
    return [protocol, form]


def error_policy(disk: Disk) -> Properties:
    """What the guest sees of an error of its disk. Stopped, it can go on when the cause is gone; hence the default."""
    policy = disk.error_policy or "stop"
    match policy:
        case "stop" | "ignore" | "report":
            return {"werror": policy, "rerror": policy}
        case "enospace":
            # There is no such thing as a full disk on reading.
            return {"werror": "enospc", "rerror": "report"}
        case unreachable:
            assert_never(unreachable)


def sector_sizes(disk: Disk) -> Properties:
    """``blockSize.custom`` as device properties."""
    custom = disk.block_size.custom if disk.block_size else None
    if custom is None:
        return {}
    sizes: Properties = {
        "logical_block_size": custom.logical,
        "physical_block_size": custom.physical,
    }
    if custom.discard_granularity is not None:
        sizes["discard_granularity"] = custom.discard_granularity
    return sizes
