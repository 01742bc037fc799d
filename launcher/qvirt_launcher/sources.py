"""Where the bytes of a VM's volumes lie on this machine: images, claims and Secrets, each found before anything is started.

The role that the kubelet has in a cluster. What is found is handed to the launcher as `LocalVolume`s.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, get_args

import msgspec

from qvirt_crds import pod_layout
from qvirt_crds.load import Manifests
from qvirt_crds.report import KernelFiles, LocalVolume
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_crds.volumes import CloudInit, ContainerDisk, PersistentVolumeClaim, Volume
from qvirt_launcher.account import Account, check_access
from qvirt_launcher.claims import Claim, local_claim
from qvirt_launcher.cloudinit import NETWORK_DATA_KEYS, USER_DATA_KEYS
from qvirt_launcher.errors import ClaimError, HostError, ImageError, UsageError
from qvirt_launcher.images import DiskFile, ImageStore, Remote, Source, parse_source
from qvirt_launcher.registry import Policy, Registry, default_policy

_DOCKER_CONFIG: Final = ".dockerconfigjson"

Notify = Callable[[str], None]


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says about volumes."""

    #: Image name of the manifest -> source, as typed.
    images: Mapping[str, str] = {}
    claims: Mapping[str, Claim] = {}
    insecure: tuple[str, ...] = ()
    cache: Path


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found."""

    volumes: tuple[LocalVolume, ...] = ()
    kernel: KernelFiles | None = None


class Finder:
    """Finds the sources of one VM.

    :param folder: a directory of the VM's own, where Secrets are written.
    """

    def __init__(
        self,
        vmi: VirtualMachineInstance,
        manifests: Manifests,
        given: Given,
        account: Account,
        folder: Path,
        notify: Notify,
    ) -> None:
        self._vmi = vmi
        self._manifests = manifests
        self._given = given
        self._account = account
        self._folder = folder
        self._notify = notify
        self._credentials = folder

    def find(self) -> Found:
        """All of them.

        :raise UsageError: an option names an image or claim that the manifest doesn't have.
        :raise HostError: something can't be had, or the launcher's user can't open it.
        """
        refuse_unknown(self._vmi, self._given)
        with tempfile.TemporaryDirectory(dir=self._folder) as credentials:
            self._credentials = Path(credentials)
            volumes = [self._volume(volume) for volume in self._vmi.spec.volumes]
            kernel = self._kernel()
        access = [self._credential(c) for c in pod_layout.credentials_of(self._vmi.spec)]
        found = [volume for volume in volumes if volume is not None]
        return Found(volumes=(*found, *access), kernel=kernel)

    def _volume(self, volume: Volume) -> LocalVolume | None:
        if volume.container_disk is not None:
            return self._container_disk(volume.name, volume.container_disk)
        if volume.persistent_volume_claim is not None:
            claim = volume.persistent_volume_claim
            return self._claim(volume.name, claim, read_only=claim.read_only)
        if volume.ephemeral is not None:
            claim = volume.ephemeral.persistent_volume_claim
            return self._claim(volume.name, claim, read_only=True)
        data = volume.cloud_init_no_cloud or volume.cloud_init_config_drive
        if data is not None and (data.secret_ref or data.network_data_secret_ref):
            return self._secrets(volume.name, data)
        return None

    def _container_disk(self, name: str, disk: ContainerDisk) -> LocalVolume:
        store, source = self._store(disk.image, disk.image_pull_policy, disk.image_pull_secret)
        found = store.disk(disk.image, source, disk.path)
        what = f"volume {name}: image {disk.image}"
        try:
            check_access(what, found.path, self._account, write=False)
        except HostError as error:
            raise ImageError(str(error)) from error
        where = "" if isinstance(source, DiskFile) else ", cached" if found.cached else ", unpacked"
        self._notify(f"volume {name}: {disk.image} ({found.format}{where})")
        return LocalVolume(volume=name, path=str(found.path), format=found.format, read_only=True)

    def _kernel(self) -> KernelFiles | None:
        firmware = self._vmi.spec.domain.firmware
        container = firmware.kernel_boot.container if firmware and firmware.kernel_boot else None
        if container is None:
            return None
        store, source = self._store(
            container.image, container.image_pull_policy, container.image_pull_secret
        )
        return KernelFiles(
            kernel=_file(store, container.image, source, container.kernel_path),
            initrd=_file(store, container.image, source, container.initrd_path),
        )

    def _store(self, image: str, policy: str, pull_secret: str) -> tuple[ImageStore, Source]:
        typed = self._given.images.get(image)
        source = parse_source(typed) if typed else Remote(image, _policy(image, policy))
        authfile = None
        if isinstance(source, Remote) and pull_secret:
            authfile = self._authfile(image, pull_secret)
        registry = Registry(self._given.insecure, authfile)
        return ImageStore(self._given.cache, registry, self._notify), source

    def _authfile(self, image: str, secret: str) -> Path:
        values = self._secret(f"image {image}: imagePullSecret", secret)
        if _DOCKER_CONFIG not in values:
            raise HostError(
                f"image {image}: imagePullSecret {secret} has no key {_DOCKER_CONFIG};"
                " make it with kubectl create secret docker-registry"
            )
        # Gone before the guest's user gets at the run directory.
        path = self._credentials / secret
        if not path.exists():
            _write_secret(path, values[_DOCKER_CONFIG])
        return path

    def _claim(self, volume: str, claim: PersistentVolumeClaim, *, read_only: bool) -> LocalVolume:
        known = self._given.claims.get(claim.claim_name)
        if known is None:
            raise ClaimError(
                f"volume {volume}: claim {claim.claim_name} is unknown here; say what it is with"
                f" --pvc {claim.claim_name}=PATH"
            )
        found = local_claim(volume, known, self._account, read_only)
        if found.warning:
            self._notify(found.warning)
        return found.volume

    def _secrets(self, volume: str, data: CloudInit) -> LocalVolume:
        files: dict[str, bytes] = {}
        for reference, keys in (
            (data.secret_ref, USER_DATA_KEYS),
            (data.network_data_secret_ref, NETWORK_DATA_KEYS),
        ):
            if reference is not None:
                values = self._secret(f"volume {volume}", reference.name)
                files |= required(volume, reference.name, values, keys)
        return self._write(volume, files)

    def _credential(self, mount: pod_layout.SecretMount) -> LocalVolume:
        return self._write(mount.pod_volume, self._secret("accessCredentials", mount.secret))

    def _write(self, volume: str, files: Mapping[str, bytes]) -> LocalVolume:
        folder = self._folder / "secrets" / volume
        folder.mkdir(parents=True, mode=0o700)
        for key, value in files.items():
            _write_secret(folder / key, value)
        return LocalVolume(volume=volume, path=str(folder), read_only=True)

    def _secret(self, what: str, name: str) -> Mapping[str, bytes]:
        namespace = self._vmi.metadata.namespace or "default"
        values = self._manifests.secrets.get((namespace, name))
        if values is None:
            raise HostError(
                f"{what}: Secret {namespace}/{name} is not there; put it beside the VM, or give its manifest with --secret FILE"
            )
        return values


def _write_secret(path: Path, value: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with open(handle, "wb") as file:
        file.write(value)


def refuse_unknown(vmi: VirtualMachineInstance, given: Given) -> None:
    """A mapping that nothing uses is a misspelt one.

    :raise UsageError: naming what the manifest does have.
    """
    images = {v.container_disk.image for v in vmi.spec.volumes if v.container_disk is not None}
    firmware = vmi.spec.domain.firmware
    if firmware and firmware.kernel_boot and firmware.kernel_boot.container:
        images.add(firmware.kernel_boot.container.image)
    claims = {_claim_name(volume) for volume in vmi.spec.volumes} - {""}
    for option, typed, known in (
        ("--image", given.images, images),
        ("--pvc", given.claims, claims),
    ):
        for name in typed:
            if name not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise UsageError(
                    f"{option} {name}=...: the manifest doesn't name that; it names {listed}"
                )


def _claim_name(volume: Volume) -> str:
    claim = volume.persistent_volume_claim
    if volume.ephemeral is not None:
        claim = volume.ephemeral.persistent_volume_claim
    return claim.claim_name if claim is not None else ""


def _policy(image: str, word: str) -> Policy:
    for policy in get_args(Policy):
        if word == policy:
            return policy  # type: ignore[no-any-return]
    return default_policy(image)


def _file(store: ImageStore, image: str, source: Source, path: str) -> str:
    return str(store.file(image, source, path)) if path else ""


def required(
    volume: str, secret: str, values: Mapping[str, bytes], keys: tuple[str, ...]
) -> dict[str, bytes]:
    """Those of the keys that a Secret has.

    :raise HostError: it has none of them.
    """
    found = {key: values[key] for key in keys if key in values}
    if not found:
        raise HostError(
            f"volume {volume}: Secret {secret} has neither key {' nor '.join(keys)}; add one"
        )
    return found
