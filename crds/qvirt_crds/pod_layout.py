"""Where things lie in a launcher pod: written into the pod by virt-controller, opened by the launcher. Paths are KubeVirt's where it has one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from qvirt_crds.model import Model

if TYPE_CHECKING:
    # The launcher reads its sidecars' names here, and is small without the whole of the spec.
    from qvirt_crds.vm import VirtualMachineInstanceSpec
    from qvirt_crds.volumes import CloudInit, PersistentVolumeClaim, Volume

RUN_DIR: Final = "/var/run/qvirt"
#: Environment variable with the arguments of vm-sync, in a pod that no virt-handler looks after.
VM_VARIABLE: Final = "QVIRT_VM"

HOLDER_DIR: Final = "/qvirt-holder"
HOLDER_PROGRAM: Final = f"{HOLDER_DIR}/holder"
#: A static program in the launcher's image (`images/holder`), which puts a copy of itself into the pod's volume.
HOLDER_SOURCE: Final = "/usr/lib/qvirt/holder"
#: A FIFO that the launcher holds open.
HOLDER_PIPE: Final = f"{HOLDER_DIR}/launcher"
#: The guest's serial console, as the launcher hears it, for the container that logs it.
CONSOLE_DIR: Final = "/var/run/qvirt-console"
CONSOLE_PIPE: Final = f"{CONSOLE_DIR}/serial0"
#: For the launcher to make the pipe.
_CONSOLE_SECONDS: Final = 600
_HOLDER_MARK: Final = "QVIRT_VOLUME="
#: Stands in a holder's mark for the image of ``firmware.kernelBoot``; no volume can have a name with a blank.
KERNEL_BOOT: Final = "kernel boot"
KERNEL_BOOT_DIR: Final = "/var/run/kubevirt-kernel-boot"

#: Ends of the names of cloud-init Secrets' volumes.
USER_DATA: Final = "-udata"
NETWORK_DATA: Final = "-ndata"

#: The disk on a Filesystem claim (KubeVirt's name).
CLAIM_FILE: Final = "disk.img"

_PRIVATE: Final = "/var/run/kubevirt-private"


class SecretMount(Model, frozen=True, kw_only=True):
    """A Secret, as a volume of the pod."""

    pod_volume: str
    secret: str
    path: str


def label(text: str) -> str:
    """The text, or 54 characters of it and a hash where it is longer than a label may be (KubeVirt's rule)."""
    if len(text) <= 63:
        return text
    return f"{text[:54]}-{hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:8]}"


def injector_command() -> list[str]:
    """What puts the holders' program into the pod's volume, and beside it the pipe by which they see the launcher's end."""
    return [HOLDER_SOURCE, "inject", HOLDER_SOURCE, HOLDER_PROGRAM, HOLDER_PIPE]


def holder_command(volume: str, *, stays: bool = False) -> list[str]:
    """What runs in the sidecar of a containerDisk; names the volume, so that the launcher finds its process.

    The disk's image has no program of its own to rely on. On SIGTERM the holder ends with status 0, so that a pod
    whose guest has ended well is Succeeded. It ends by itself when the launcher is no more, even if that was killed: the
    launcher has the pipe open for writing all its life.

    :param stays: it waits for the next launcher then, as the pod's containers are started again. The launcher ends it when
        they are not.
    """
    return [HOLDER_PROGRAM, "stay" if stays else "hold", HOLDER_PIPE, _HOLDER_MARK + volume]


def console_log_command() -> list[str]:
    """What copies the console's pipe to its standard output until the launcher's end, however that comes.

    SIGTERM is for the guest to shut down, and what it says then is worth keeping: so it is ignored here.
    """
    return [HOLDER_SOURCE, "log", CONSOLE_PIPE, str(_CONSOLE_SECONDS)]


def held_volume(cmdline: tuple[str, ...]) -> str | None:
    """The volume of a holder's command line; None for any other process."""
    match cmdline:
        case (program, "hold" | "stay", _, mark) if program == HOLDER_PROGRAM:
            return mark.removeprefix(_HOLDER_MARK) if mark.startswith(_HOLDER_MARK) else None
        case _:
            return None


def claim_of(volume: Volume) -> PersistentVolumeClaim | None:
    """The claim behind a volume, for persistentVolumeClaim and ephemeral."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim
    return volume.ephemeral.persistent_volume_claim if volume.ephemeral is not None else None


def claim_dir(volume: str) -> str:
    """Mount of a Filesystem claim; the disk is ``disk.img`` in it."""
    return f"{_PRIVATE}/vmi-disks/{volume}"


def block_device(volume: str) -> str:
    """Device of a Block claim."""
    return f"/dev/{volume}"


def image_dir(volume: str) -> str:
    """Mount of a containerDisk where the cluster has image volumes."""
    return f"/var/run/kubevirt-image-volume/{volume}"


def credentials_of(spec: VirtualMachineInstanceSpec) -> tuple[SecretMount, ...]:
    """The Secrets of a spec's access credentials, each once. The kubelet keeps the files as the Secrets are."""
    named = dict.fromkeys(entry.secret for entry in spec.access_credentials if entry.secret)
    return tuple(
        SecretMount(
            pod_volume=credential_volume(secret),
            secret=secret,
            path=f"{_PRIVATE}/secret/{credential_volume(secret)}",
        )
        for secret in named
    )


def credential_volume(secret: str) -> str:
    """What a Secret of access credentials is called among volumes."""
    return f"{secret}-access-cred"


def secrets_of(volume: Volume) -> tuple[SecretMount, ...]:
    """The Secrets of a cloud-init volume: user data and network data, each in a directory of its own."""
    source: CloudInit | None = volume.cloud_init_no_cloud or volume.cloud_init_config_drive
    if source is None:
        return ()
    named = ((USER_DATA, source.secret_ref), (NETWORK_DATA, source.network_data_secret_ref))
    return tuple(
        SecretMount(
            pod_volume=f"{volume.name}{suffix}",
            secret=reference.name,
            path=f"{_PRIVATE}/secret/{volume.name}{suffix}",
        )
        for suffix, reference in named
        if reference is not None
    )
