"""The order in which firmware tries devices: ``bootindex`` of each, and ``-boot``."""

from __future__ import annotations

from collections.abc import Iterable

from qvirt_crds.devices import Disk
from qvirt_crds.domain import Domain
from qvirt_crds.model import Model
from qvirt_crds.vm import VirtualMachineInstanceSpec
from qvirt_launcher.arguments import Options


class BootOrder(Model, frozen=True, kw_only=True):
    """``bootindex`` by name; who has none is not booted from (``-boot strict=on``)."""

    disks: dict[str, int] = {}
    interfaces: dict[str, int] = {}


def boot_order(domain: Domain) -> BootOrder:
    """The spec's own order; without any, the disks as they are listed: hard disks, then CD-ROMs, then floppies."""
    devices = domain.devices
    disks = {d.name: d.boot_order for d in devices.disks if d.boot_order is not None}
    interfaces = {i.name: i.boot_order for i in devices.interfaces if i.boot_order is not None}
    if disks or interfaces:
        return BootOrder(disks=disks, interfaces=interfaces)
    return BootOrder(disks={d.name: i for i, d in enumerate(_by_kind(devices.disks), start=1)})


def boot_options(spec: VirtualMachineInstanceSpec) -> Options:
    """``-boot``. A guest that starts paused shows a menu for ten seconds, as KubeVirt's does."""
    paused = spec.start_strategy == "Paused"
    return {
        "strict": True,
        "menu": True if paused else None,
        "splash-time": 10_000 if paused else None,
    }


def _by_kind(disks: Iterable[Disk]) -> list[Disk]:
    return sorted(disks, key=lambda disk: 2 if disk.floppy else 1 if disk.cdrom else 0)
