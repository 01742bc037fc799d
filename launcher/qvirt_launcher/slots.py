"""Where devices are plugged in: PCI Express ports on q35, PCI slots on pc, virtio-mmio transports on microvm.

Addresses depend on the spec's order alone, so that a guest finds its devices where they were before (Windows needs that).
On q35 every PCI Express endpoint has a root port of its own, where it could be unplugged; port number N is bus N of the
guest, because firmware numbers bridges in the order of their addresses. Devices of plain PCI sit on the root complex,
as QEMU's docs/pcie.txt asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Protocol

from qvirt_launcher.arguments import Properties, refused
from qvirt_launcher.board import Family

_ADDRESS: Final = re.compile(r"(?:0000:)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")
#: q35: slot 0 is the host bridge, 1 is the display's, 0x1f the ICH9's own functions.
_ROOT_PORT_SLOTS: Final = range(0x02, 0x08)
_ROOT_COMPLEX_SLOTS: Final = range(0x08, 0x1F)
#: pc: 0 is the host bridge, 1 the PIIX3, 2 the display's.
_PCI_SLOTS: Final = range(0x03, 0x20)
_VIRTIO_MMIO_TRANSPORTS: Final = 24
_VIRTIO_MMIO_TRANSPORTS_WITHOUT_ACPI: Final = 8

#: path of the field -> the PCI address that a user asked for there
Wishes = Iterable[tuple[str, str]]


class Slots(Protocol):
    """Places on one machine; each method takes one and says where it is."""

    def virtio(self, path: str, wish: str = "") -> Properties:
        """A place for a virtio device. Transitional ones are plain PCI: they need I/O ports, which Express ports may lack."""

    def express(self, path: str, wish: str = "") -> Properties:
        """A place for any other PCI Express device."""

    def conventional(self, path: str, wish: str = "") -> Properties:
        """A place for a device of plain PCI."""

    def video(self) -> Properties:
        """The display's place, always the same."""

    def keep_free(self, count: int) -> None:
        """Leave empty places for devices that come later."""

    def bridges(self) -> tuple[Properties, ...]:
        """The devices that make these places."""


def slots_of(board: Family, *, acpi: bool, transitional: bool, wishes: Wishes) -> Slots:
    """:param wishes: all explicit addresses of the spec, so that nothing else takes their places."""
    if board == "q35":
        return ExpressSlots(wishes, transitional=transitional)
    if board == "pc":
        return PciSlots(wishes)
    return MmioSlots(_VIRTIO_MMIO_TRANSPORTS if acpi else _VIRTIO_MMIO_TRANSPORTS_WITHOUT_ACPI)


class ExpressSlots:
    """q35: ``pcie.0`` and the root ports on it."""

    def __init__(self, wishes: Wishes, *, transitional: bool) -> None:
        self._transitional = transitional
        self._wished = _parse_wishes(wishes, self._check)
        self._ports = max((bus for bus, _ in self._wished), default=0)
        self._next_port = 1
        self._next_slot = _ROOT_COMPLEX_SLOTS.start

    def virtio(self, path: str, wish: str = "") -> Properties:
        return self.conventional(path, wish) if self._transitional else self.express(path, wish)

    def express(self, path: str, wish: str = "") -> Properties:
        if wish:
            return self._wish(wish)
        while (self._next_port, 0) in self._wished:
            self._next_port += 1
        port = self._next_port
        self._next_port += 1
        self._grow(port, path)
        return {"bus": f"pci.{port}", "addr": "0x0"}

    def conventional(self, path: str, wish: str = "") -> Properties:
        if wish:
            return self._wish(wish)
        while (0, self._next_slot) in self._wished:
            self._next_slot += 1
        slot = self._next_slot
        self._next_slot += 1
        if slot not in _ROOT_COMPLEX_SLOTS:
            raise refused(
                path, f"more than {len(_ROOT_COMPLEX_SLOTS)} PCI devices that are not PCI Express"
            )
        return {"bus": "pcie.0", "addr": hex(slot)}

    def video(self) -> Properties:
        return {"bus": "pcie.0", "addr": "0x1"}

    def keep_free(self, count: int) -> None:
        room = len(_ROOT_PORT_SLOTS) * 8
        self._next_port = min(self._next_port + count, room + 1)
        self._ports = max(self._ports, self._next_port - 1)

    def bridges(self) -> tuple[Properties, ...]:
        return tuple(_root_port(number) for number in range(1, self._ports + 1))

    def _grow(self, port: int, path: str) -> None:
        if port > len(_ROOT_PORT_SLOTS) * 8:
            raise refused(path, f"more than {len(_ROOT_PORT_SLOTS) * 8} PCI Express devices")
        self._ports = max(self._ports, port)

    def _wish(self, wish: str) -> Properties:
        bus, slot = _parse_address(wish)
        return {"bus": f"pci.{bus}" if bus else "pcie.0", "addr": hex(slot)}

    @staticmethod
    def _check(bus: int, slot: int) -> str:
        if bus == 0:
            first, last = _ROOT_COMPLEX_SLOTS[0], _ROOT_COMPLEX_SLOTS[-1]
            return (
                ""
                if slot in _ROOT_COMPLEX_SLOTS
                else f"on bus 00 slots {first:02x}-{last:02x} are free"
            )
        if bus > len(_ROOT_PORT_SLOTS) * 8:
            return f"buses end at {len(_ROOT_PORT_SLOTS) * 8:02x}"
        return "" if slot == 0 else "a PCI Express port has slot 00 only"


class PciSlots:
    """pc: the one bus ``pci.0``."""

    def __init__(self, wishes: Wishes) -> None:
        self._wished = _parse_wishes(wishes, self._check)
        self._next = _PCI_SLOTS.start

    def express(self, path: str, wish: str = "") -> Properties:
        if wish:
            return {"bus": "pci.0", "addr": hex(_parse_address(wish)[1])}
        while (0, self._next) in self._wished:
            self._next += 1
        slot = self._next
        self._next += 1
        if slot not in _PCI_SLOTS:
            raise refused(path, f"machine type pc has {len(_PCI_SLOTS)} PCI slots: use q35")
        return {"bus": "pci.0", "addr": hex(slot)}

    virtio = conventional = express

    def video(self) -> Properties:
        return {"bus": "pci.0", "addr": "0x2"}

    def keep_free(self, count: int) -> None:
        """Every slot of pci.0 is there and can be hot-plugged anyway."""

    def bridges(self) -> tuple[Properties, ...]:
        return ()

    @staticmethod
    def _check(bus: int, slot: int) -> str:
        if bus:
            return "machine type pc has bus 00 only"
        return (
            "" if slot in _PCI_SLOTS else f"slots {_PCI_SLOTS[0]:02x}-{_PCI_SLOTS[-1]:02x} are free"
        )


class MmioSlots:
    """microvm: virtio-mmio transports. QEMU lists them from the last to the first, so that is how guests number devices."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count

    def virtio(self, path: str, wish: str = "") -> Properties:
        if wish:
            raise refused(path, "machine type microvm has no PCI: leave pciAddress out")
        if self._free == 0:
            raise refused(path, f"this microvm has {self._count} virtio devices at most")
        self._free -= 1
        return {"bus": f"virtio-mmio-bus.{self._free}"}

    def conventional(self, path: str, wish: str = "") -> Properties:
        raise refused(
            path, f"machine type microvm has no PCI{' ' * bool(wish)}{wish}: use q35 or pc"
        )

    express = conventional

    def video(self) -> Properties:
        raise refused("spec.domain.devices.video", "machine type microvm has no display adapter")

    def keep_free(self, count: int) -> None:
        """Nothing can be plugged into virtio-mmio later."""

    def bridges(self) -> tuple[Properties, ...]:
        return ()


def _root_port(number: int) -> Properties:
    slot, function = divmod(number - 1, 8)
    return {
        "driver": "pcie-root-port",
        "id": f"pci.{number}",
        "bus": "pcie.0",
        "addr": f"{_ROOT_PORT_SLOTS[slot]:#x}.{function:#x}",
        "chassis": number,
        "port": number,
        **({"multifunction": True} if function == 0 else {}),
    }


class _Check(Protocol):
    def __call__(self, bus: int, slot: int) -> str: ...


def _parse_wishes(wishes: Wishes, check: _Check) -> frozenset[tuple[int, int]]:
    taken: dict[tuple[int, int], str] = {}
    for path, wish in wishes:
        if not wish:
            continue
        match = _ADDRESS.fullmatch(wish)
        if match is None or match.group(3) != "0":
            raise refused(
                path, f"{wish!r} is no PCI address: write 0000:BB:SS.0, e.g. 0000:05:00.0"
            )
        place = _parse_address(wish)
        if problem := check(*place):
            raise refused(path, f"{wish}: no such place on this machine: {problem}")
        if place in taken:
            raise refused(path, f"{wish} is the address of {taken[place]} already")
        taken[place] = path
    return frozenset(taken)


def _parse_address(text: str) -> tuple[int, int]:
    """Bus and slot of an address that `_parse_wishes` has let pass."""
    bus, slot = text.removeprefix("0000:").split(".")[0].split(":")
    return int(bus, 16), int(slot, 16)
