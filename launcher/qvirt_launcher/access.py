"""Which Secrets open the guest, where they lie, and which way they go in (pure). Runs in the worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from qvirt_crds import pod_layout
from qvirt_crds.credentials import AccessCredential
from qvirt_crds.report import LocalVolume
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.errors import PrepareError
from qvirt_launcher.secretfiles import Credential

#: cloud-init's ways.
SeedMethod = Literal["noCloud", "configDrive"]


def by_agent(
    vmi: VirtualMachineInstance, volumes: tuple[LocalVolume, ...]
) -> tuple[Credential, ...]:
    """Those that the guest's agent carries in.

    :raise PrepareError: a Secret has no place on this machine.
    """
    local = {volume.volume: volume for volume in volumes}
    return tuple(
        Credential(
            kind="passwords" if entry.user_password else "keys",
            secret=entry.secret,
            directory=_directory(entry, local),
            users=users,
        )
        for entry, users in _agents(vmi)
    )


def by_seed(
    vmi: VirtualMachineInstance, local: Mapping[str, LocalVolume], method: SeedMethod
) -> tuple[str, ...]:
    """Directories of the Secrets whose ssh keys go into the meta data of a cloud-init seed.

    :raise PrepareError: a Secret has no place on this machine.
    """
    return tuple(
        _directory(entry, local)
        for entry in vmi.spec.access_credentials
        if _seed_method(entry) == method
    )


def _agents(vmi: VirtualMachineInstance) -> Iterator[tuple[AccessCredential, tuple[str, ...]]]:
    for entry in vmi.spec.access_credentials:
        if entry.user_password is not None:
            yield entry, ()
        elif entry.ssh_public_key is not None:
            agent = entry.ssh_public_key.propagation_method.qemu_guest_agent
            if agent is not None:
                yield entry, agent.users


def _seed_method(entry: AccessCredential) -> SeedMethod | None:
    if entry.ssh_public_key is None:
        return None
    method = entry.ssh_public_key.propagation_method
    if method.no_cloud is not None:
        return "noCloud"
    return "configDrive" if method.config_drive is not None else None


def _directory(entry: AccessCredential, local: Mapping[str, LocalVolume]) -> str:
    place = local.get(pod_layout.credential_volume(entry.secret))
    if place is None:
        raise PrepareError(
            f"access credentials: nobody said where Secret {entry.secret} lies on this machine; name"
            f" {pod_layout.credential_volume(entry.secret)} in vm-sync's volumes"
        )
    return place.path
