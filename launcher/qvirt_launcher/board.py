"""The machine type: which of the three families of boards it is, and what that decides (``-machine``).

QEMU's documentation: docs/system/i386/pc, docs/system/i386/microvm.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from qvirt_crds.domain import Domain, Timer
from qvirt_launcher.arguments import Options, refused
from qvirt_launcher.facts import HostFacts

Family = Literal["q35", "pc", "microvm"]
VirtioKind = Literal["blk", "net", "scsi", "serial", "balloon", "rng"]

#: Versioned names too: ``pc-q35-7.2``, ``pc-i440fx-7.2``, and distributions' own such as ``pc-q35-rhel9.2.0``.
_TYPES: Final[tuple[tuple[re.Pattern[str], Family], ...]] = (
    (re.compile(r"q35|pc-q35-[A-Za-z0-9.+_-]+"), "q35"),
    (re.compile(r"pc|pc-i440fx-[A-Za-z0-9.+_-]+"), "pc"),
    (re.compile(r"microvm"), "microvm"),
)


def machine_type(domain: Domain) -> str:
    """The machine type as QEMU knows it; q35 when unset."""
    return (domain.machine.type if domain.machine else "") or "q35"


def family(domain: Domain) -> Family:
    """:raise SpecError: a machine type that we can't lay out."""
    name = machine_type(domain)
    for pattern, found in _TYPES:
        if pattern.fullmatch(name):
            return found
    raise refused(
        "spec.domain.machine.type",
        f"{name!r} is not supported: use q35, pc, microvm, or a versioned pc-q35-* or pc-i440fx-*",
    )


def virtio_driver(kind: VirtioKind, board: Family, transitional: bool) -> str:
    """QEMU's name of a virtio device on this board.

    ``non-transitional`` is virtio 1.0 only, as KubeVirt has it; ``transitional`` is for guests older than that
    (``devices.useVirtioTransitional``). On microvm devices sit on virtio-mmio.
    """
    if board == "microvm":
        return f"virtio-{kind}-device"
    return f"virtio-{kind}-pci-{'transitional' if transitional else 'non-transitional'}"


#: MiB of translated code that an emulated guest may keep. QEMU's own limit is 1 GiB: a Debian that boots fills 418 MiB of
#: it, and takes a third more time than with this (docs/memory.md).
TRANSLATED_MIB: Final = 64


def accelerator(host: HostFacts) -> Options:
    """``-accel``."""
    if host.accel == "tcg":
        return {"accel": host.accel, "tb-size": TRANSLATED_MIB}
    return {"accel": host.accel}


def board_options(domain: Domain) -> Options:
    """``-machine``, without what firmware and memory add to it."""
    board = family(domain)
    timers = domain.clock.timer if domain.clock else None
    features = domain.features
    options: Options = {
        "type": machine_type(domain),
        "usb": False,
        "dump-guest-core": False,
    }
    if features and features.acpi:
        options["acpi"] = features.acpi.enabled is not False
    if features and features.smm:
        options["smm"] = features.smm.enabled is not False
    if board == "microvm":
        # The serial port is a -device as everywhere else; the built-in one would take a -serial.
        options["isa-serial"] = False
        options["rtc"] = _present(timers.rtc) if timers else None
    else:
        options["vmport"] = False
        options["hpet"] = _present(timers.hpet) if timers else None
    options["pit"] = _present(timers.pit) if timers else None
    return options


def _present(timer: Timer | None) -> bool | None:
    return None if timer is None else timer.present is not False
