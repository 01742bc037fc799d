"""Where the bytes of a VM's volumes lie in its pod: what the kubelet mounted, and what sidecars hold. Runs in the worker.

Paths are those of `qvirt_crds.pod_layout`; messages about containerDisks are KubeVirt's where it has one.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from qvirt_crds import pod_layout
from qvirt_crds.quantity import parse_bytes
from qvirt_crds.report import KernelFiles, LocalVolume
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_crds.volumes import ContainerDisk, PersistentVolumeClaim, Volume
from qvirt_launcher import cloudinit
from qvirt_launcher.diskformat import image_format
from qvirt_launcher.errors import ClaimError, HostError, ImageError
from qvirt_launcher.holders import PROC, find_holders

#: Holders are started after us, each once its image is there; the pod was handed over, so they are close.
_HOLDER_SECONDS: Final = 60.0
_HOLDER_POLL: Final = 0.1
_DISK_FOLDER: Final = "disk"
_MIB: Final = 1 << 20
#: KubeVirt's reserve on a claim's file system, and how much smaller than asked for a disk may be.
_RESERVE: Final = 131072
_TOLERATED: Final = 0.9
_MOST_LINKS: Final = 40


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """The pod's file system; another root than ``/`` is for trying this out."""

    root: Path = Path("/")
    proc: Path = Path(PROC)
    #: Seconds to wait for a holder.
    patience: float = _HOLDER_SECONDS
    sleep: Callable[[float], None] = time.sleep

    def at(self, path: str) -> Path:
        """A path of the pod."""
        return self.root / path.removeprefix("/")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found."""

    volumes: tuple[LocalVolume, ...] = ()
    kernel: KernelFiles | None = None


def find(vmi: VirtualMachineInstance, directory: str, pod: Pod | None = None) -> Found:
    """The places of all volumes.

    :param directory: of this VM's own; Secrets of one volume are brought together there, as links.
    :raise HostError: something isn't there, isn't what it should be, or can't be read by our user.
    """
    pod = pod or Pod()
    places = [_find(vmi, volume, Path(directory), pod) for volume in vmi.spec.volumes]
    credentials = [
        LocalVolume(volume=mount.pod_volume, path=str(pod.at(mount.path)), read_only=True)
        for mount in pod_layout.credentials_of(vmi.spec)
    ]
    found = [place for place in places if place is not None]
    return Found(volumes=(*found, *credentials), kernel=_kernel(vmi, pod))


def _find(
    vmi: VirtualMachineInstance, volume: Volume, directory: Path, pod: Pod
) -> LocalVolume | None:
    if volume.container_disk is not None:
        return _container_disk(volume.name, volume.container_disk, pod)
    claim = pod_layout.claim_of(volume)
    if claim is not None:
        return _claim(vmi, volume, claim, pod)
    return _secrets(volume, directory, pod)


# --- containerDisk ---------------------------------------------------------------------------------------------------


def _container_disk(name: str, disk: ContainerDisk, pod: Pod) -> LocalVolume:
    root = _image_root(name, pod_layout.image_dir(name), pod)
    path = _inside(root, disk.path) if disk.path else _only_file(root)
    try:
        form = image_format(path)
    except ImageError as error:
        raise ImageError(f"invalid image in containerDisk {name}: {error}") from error
    return LocalVolume(volume=name, path=str(path), format=form, read_only=True)


def _image_root(name: str, mount: str, pod: Pod) -> Path:
    """The image's files: mounted for us, or seen through the process of the sidecar that holds them."""
    mounted = pod.at(mount)
    if mounted.is_dir():
        return mounted
    waited = 0.0
    while waited <= pod.patience:
        for holder in find_holders(pod.proc):
            if holder.volume == name:
                return Path(holder.root)
        pod.sleep(_HOLDER_POLL)
        waited += _HOLDER_POLL
    raise ImageError(
        f"containerDisk {name}: neither is its image mounted, nor did the sidecar that holds it start within"
        f" {pod.patience:g} s; see the pod's events"
    )


def _only_file(root: Path) -> Path:
    folder = _inside(root, f"/{_DISK_FOLDER}", "no file found in folder")
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise ImageError(f"/{_DISK_FOLDER}: {error.strerror}; it must be a folder") from error
    if not names:
        raise ImageError(f"no file found in folder /{_DISK_FOLDER}, no disk present")
    if len(names) > 1:
        raise ImageError(
            f"more than one file found in folder /{_DISK_FOLDER}, only one disk is allowed"
        )
    return _inside(root, f"/{_DISK_FOLDER}/{names[0]}")


def _inside(root: Path, path: str, missing: str = "") -> Path:
    """A path of an image as a path of ours, its symbolic links followed as if ``root`` were ``/``.

    :raise ImageError: it isn't there, or our user may not look.
    """
    left = [part for part in reversed(path.split("/")) if part not in {"", "."}]
    trail: list[str] = []
    links = 0
    while left:
        part = left.pop()
        if part == "..":
            trail = trail[:-1]
            continue
        here = root.joinpath(*trail, part)
        try:
            is_link = stat.S_ISLNK(here.lstat().st_mode)
            target = os.readlink(here) if is_link else ""
        except FileNotFoundError:
            raise ImageError(
                f"{missing} {path}, no disk present" if missing else f"{path}: not in the image"
            ) from None
        except OSError as error:
            raise ImageError(
                f"{path}: {error.strerror} for uid {os.geteuid()}; the image's files must be readable by it"
            ) from error
        if not is_link:
            trail.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise ImageError(f"{path}: too many symbolic links")
        if target.startswith("/"):
            trail = []
        left += [word for word in reversed(target.split("/")) if word not in {"", "."}]
    return root.joinpath(*trail)


def _kernel(vmi: VirtualMachineInstance, pod: Pod) -> KernelFiles | None:
    firmware = vmi.spec.domain.firmware
    container = firmware.kernel_boot.container if firmware and firmware.kernel_boot else None
    if container is None:
        return None
    root = _image_root(pod_layout.KERNEL_BOOT, pod_layout.KERNEL_BOOT_DIR, pod)

    def place(path: str) -> str:
        return str(_inside(root, path)) if path else ""

    return KernelFiles(kernel=place(container.kernel_path), initrd=place(container.initrd_path))


# --- claims ----------------------------------------------------------------------------------------------------------


def _claim(
    vmi: VirtualMachineInstance, volume: Volume, claim: PersistentVolumeClaim, pod: Pod
) -> LocalVolume:
    reading = volume.ephemeral is not None or claim.read_only
    device = pod.at(pod_layout.block_device(volume.name))
    if _is_block_device(device):
        return LocalVolume(volume=volume.name, path=str(device), read_only=reading)
    folder = pod.at(pod_layout.claim_dir(volume.name))
    image = folder / pod_layout.CLAIM_FILE
    if not folder.is_dir():
        raise ClaimError(
            f"volume {volume.name}: claim {claim.claim_name} is neither a device nor mounted in this pod; make the pod anew"
        )
    if not os.path.lexists(image):
        if reading:
            raise ClaimError(
                f"volume {volume.name}: claim {claim.claim_name} has no {pod_layout.CLAIM_FILE}, and it is only read; put one there"
            )
        _make_image(image, volume.name, _asked_size(vmi, volume.name))
    return LocalVolume(volume=volume.name, path=str(image), read_only=reading)


def _is_block_device(path: Path) -> bool:
    try:
        return stat.S_ISBLK(path.stat().st_mode)
    except OSError:
        return False


def _asked_size(vmi: VirtualMachineInstance, volume: str) -> int | None:
    """Bytes that the claim was promised, as virt-controller wrote them into the status; None: it didn't."""
    for entry in (vmi.status or {}).get("volumeStatus", ()):
        if entry.get("name") == volume:
            info = entry.get("persistentVolumeClaimInfo") or {}
            sizes = [
                parse_bytes(amounts["storage"])
                for amounts in (info.get("requests") or {}, info.get("capacity") or {})
                if "storage" in amounts
            ]
            return min(sizes, default=None)
    return None


def _make_image(image: Path, volume: str, asked: int | None) -> None:
    """A sparse disk as large as the claim promises, or as its file system has room for."""
    try:
        there = os.statvfs(image.parent)
        room = there.f_bavail * there.f_frsize - _RESERVE
        size = room if asked is None else min(asked, room)
        if asked is not None and room < asked * _TOLERATED:
            raise ClaimError(
                f"volume {volume}: unable to create {image}, not enough space, demanded size {asked} B is bigger than"
                f" available space {room} B"
            )
        size -= size % _MIB
        if size <= 0:
            raise ClaimError(f"volume {volume}: unable to create {image}, its claim has no room")
        handle = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
        try:
            os.truncate(handle, size)
        finally:
            os.close(handle)
    except OSError as error:
        raise ClaimError(
            f"volume {volume}: unable to create {image}: {error.strerror} (uid {os.geteuid()});"
            " the claim must be writable by it"
        ) from error


# --- Secrets ---------------------------------------------------------------------------------------------------------


def _secrets(volume: Volume, directory: Path, pod: Pod) -> LocalVolume | None:
    mounts = pod_layout.secrets_of(volume)
    if not mounts:
        return None
    together = directory / f"{volume.name}-secrets"
    try:
        together.mkdir(parents=True, mode=0o700, exist_ok=True)
        for mount in mounts:
            # One Secret may have the other's keys, too.
            keys = (
                cloudinit.USER_DATA_KEYS
                if mount.pod_volume.endswith(pod_layout.USER_DATA)
                else cloudinit.NETWORK_DATA_KEYS
            )
            for key in keys:
                _link(together / key, pod.at(mount.path) / key)
    except OSError as error:
        raise HostError(f"volume {volume.name}: {error.filename}: {error.strerror}") from error
    return LocalVolume(volume=volume.name, path=str(together), read_only=True)


def _link(link: Path, target: Path) -> None:
    if target.exists() and not os.path.lexists(link):
        link.symlink_to(target)
