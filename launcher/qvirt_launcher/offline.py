"""Facts made up for ``qvirt render``: what a usual host would be, so that argv can be printed without one."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace

from qvirt_crds.report import Accel, Attachment, KernelFiles, LocalVolume
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_crds.volumes import Volume
from qvirt_launcher.backing import Backing
from qvirt_launcher.disks import plan_disks
from qvirt_launcher.facts import EFI, EFI_SECURE, HostFacts
from qvirt_launcher.host import timezone_offset
from qvirt_launcher.nics import present_interfaces, queue_count

#: Where volumes would lie; nothing is looked up there.
_VOLUMES: Final = "/var/run/qvirt/volumes"


def offline_facts(
    vmi: VirtualMachineInstance,
    *,
    accel: Accel = "kvm",
    run_dir: str = "",
    qemu_version: tuple[int, int, int] = (7, 2, 0),
    now: datetime | None = None,
) -> HostFacts:
    """A host with QEMU and OVMF, taps for all interfaces, and files with direct I/O for all volumes.

    Images are qcow2 for containerDisks and raw for claims; MAC addresses are derived from namespace, name and interface.

    :param now: matters to clocks with an offset or time zone only; the present when None.
    :param run_dir: as root would have it when empty: ``/run/qvirt/<namespace>/<name>``.
    :raise PrepareError: a volume of a kind that can't become a disk.
    """
    now = now or datetime.now(UTC)
    namespace = vmi.metadata.namespace or "default"
    run_dir = run_dir or f"/run/qvirt/{namespace}/{vmi.metadata.name}"
    volumes = tuple(_place(volume) for volume in vmi.spec.volumes)
    plan = plan_disks(vmi, volumes, run_dir)
    passed_through = {d.name for d in vmi.spec.domain.devices.disks if d.lun is not None}
    return HostFacts(
        accel=accel,
        run_dir=run_dir,
        attachments=_attachments(vmi, namespace),
        backings=tuple(_usual(backing, passed_through) for backing in plan.backings),
        qemu_version=qemu_version,
        efi=EFI[0],
        efi_secure=EFI_SECURE[0],
        kernel=_kernel(vmi),
        now=now,
        timezone_offset=timezone_offset(vmi, now),
    )


def _place(volume: Volume) -> LocalVolume:
    if volume.container_disk is not None:
        return LocalVolume(
            volume=volume.name, path=f"{_VOLUMES}/{volume.name}/disk.qcow2", format="qcow2"
        )
    return LocalVolume(volume=volume.name, path=f"{_VOLUMES}/{volume.name}/disk.img")


def _usual(backing: Backing, passed_through: set[str]) -> Backing:
    image = backing.image
    if backing.volume in passed_through:
        image = replace(image, path=f"/dev/{backing.volume}", block=True)
    return replace(backing, image=image, direct=True)


def _attachments(vmi: VirtualMachineInstance, namespace: str) -> tuple[Attachment, ...]:
    domain = vmi.spec.domain
    found = []
    position = 0
    for interface in present_interfaces(domain):
        queues = queue_count(domain, interface)
        derived = _mac(f"{namespace}/{vmi.metadata.name}/{interface.name}")
        found.append(
            Attachment(
                interface=interface.name,
                backend="tap",
                mac=interface.mac_address or derived,
                tap_fds=tuple(range(position, position + queues)),
            )
        )
        position += queues
    return tuple(found)


def _mac(name: str) -> str:
    """Locally administered, unicast."""
    digest = hashlib.sha256(name.encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


def _kernel(vmi: VirtualMachineInstance) -> KernelFiles | None:
    firmware = vmi.spec.domain.firmware
    boot = firmware.kernel_boot if firmware else None
    if boot is None or boot.container is None:
        return None
    folder = f"{_VOLUMES}/kernel-boot"
    return KernelFiles(
        kernel=f"{folder}/kernel" if boot.container.kernel_path else "",
        initrd=f"{folder}/initrd" if boot.container.initrd_path else "",
    )
