"""Everything that is neither disk nor network card: console, display, agent channel, balloon, rng, watchdog, sound ..."""

from __future__ import annotations

from typing import Final, Literal, assert_never

from qvirt_crds import names
from qvirt_crds.domain import Domain
from qvirt_crds.model import Model
from qvirt_launcher.arguments import Options, Properties, refused
from qvirt_launcher.board import Family, virtio_driver
from qvirt_launcher.buses import Buses
from qvirt_launcher.facts import HostFacts
from qvirt_launcher.slots import Slots

_DEVICES: Final = "spec.domain.devices"
_AUDIO: Final = "audio0"
#: The only port (0 is for consoles). A controller has two queues for each port that it could have, 64 by default: each is a
#: descriptor that QEMU's main loop polls at every turn, and rings that the guest sets up at boot.
_AGENT_PORT: Final = 1
_STATS_PERIOD_SECONDS: Final = 10
_VGA_MEMORY_MIB: Final = 16


class Part(Model, frozen=True, kw_only=True):
    """One peripheral as options of several kinds; most have few."""

    chardevs: tuple[Options, ...] = ()
    objects: tuple[Properties, ...] = ()
    audiodevs: tuple[Options, ...] = ()
    devices: tuple[Properties, ...] = ()


def serial_console(domain: Domain, host: HostFacts) -> Part:
    """ttyS0 on a socket that the launcher reads; QEMU listens and starts without waiting."""
    if domain.devices.autoattach_serial_console is False:
        return Part()
    return Part(
        chardevs=(_socket("serial0", f"{host.run_dir}/{names.SERIAL_SOCKET}"),),
        devices=({"driver": "isa-serial", "id": "console", "chardev": "serial0", "index": 0},),
    )


def agent_channel(host: HostFacts, board: Family, slots: Slots, *, transitional: bool) -> Part:
    """The port that qemu-guest-agent opens in the guest; always there, as in KubeVirt."""
    place = slots.virtio(_DEVICES)
    controller = virtio_driver("serial", board, transitional)
    return Part(
        chardevs=(_socket("agent0", f"{host.run_dir}/{names.AGENT_SOCKET}"),),
        devices=(
            {"driver": controller, "id": "virtio-serial0", "max_ports": _AGENT_PORT + 1, **place},
            {
                "driver": "virtserialport",
                "id": "agent",
                "bus": "virtio-serial0.0",
                "nr": _AGENT_PORT,
                "chardev": "agent0",
                "name": "org.qemu.guest_agent.0",
            },
        ),
    )


def balloon(domain: Domain, board: Family, slots: Slots, *, transitional: bool) -> Part:
    """Gives memory back to the host; the guest reports its unused pages, except those that are huge."""
    if domain.devices.autoattach_mem_balloon is False:
        return Part()
    hugepages = domain.memory is not None and domain.memory.hugepages is not None
    place = slots.virtio(_DEVICES)
    return Part(
        devices=(
            {
                "driver": virtio_driver("balloon", board, transitional),
                "id": "balloon0",
                "free-page-reporting": not hugepages,
                "guest-stats-polling-interval": _STATS_PERIOD_SECONDS,
                **place,
            },
        )
    )


def rng(domain: Domain, board: Family, slots: Slots, *, transitional: bool) -> Part:
    """Entropy from the host."""
    if domain.devices.rng is None:
        return Part()
    place = slots.virtio(f"{_DEVICES}.rng")
    driver = virtio_driver("rng", board, transitional)
    return Part(
        objects=({"qom-type": "rng-random", "id": "entropy", "filename": "/dev/urandom"},),
        devices=({"driver": driver, "id": "rng0", "rng": "entropy", **place},),
    )


def watchdog(domain: Domain, slots: Slots) -> tuple[Part, str | None]:
    """The device, and what happens when it fires (``-action watchdog=``)."""
    asked = domain.devices.watchdog
    if asked is None:
        return Part(), None
    if asked.i6300esb is None:
        raise refused(f"{_DEVICES}.watchdog", "needs a model: i6300esb")
    place = slots.conventional(f"{_DEVICES}.watchdog")
    device: Properties = {"driver": "i6300esb", "id": "watchdog0", **place}
    return Part(devices=(device,)), asked.i6300esb.action or "reset"


def inputs(domain: Domain, buses: Buses) -> Part:
    """Absolute pointers, so that the pointer of a VNC viewer and the guest's are in one place."""
    devices: list[Properties] = []
    for index, asked in enumerate(domain.devices.inputs):
        path = f"{_DEVICES}.inputs[{index}]"
        name = f"input{index}"
        match asked.bus:
            case "usb" | "":
                port = buses.usb_port(path)
                devices.append({"driver": "usb-tablet", "id": name, **port})
            case "virtio":
                board = buses.board
                driver = "virtio-tablet-device" if board == "microvm" else "virtio-tablet-pci"
                devices.append({"driver": driver, "id": name, **buses.slots.virtio(path)})
            case unreachable:
                assert_never(unreachable)
    return Part(devices=tuple(devices))


def sound(domain: Domain, slots: Slots) -> Part:
    """A card that is heard over VNC."""
    asked = domain.devices.sound
    if asked is None:
        return Part()
    backend: Options = {"driver": "none", "id": _AUDIO}
    place = slots.conventional(f"{_DEVICES}.sound")
    match asked.model:
        case "ac97":
            card: tuple[Properties, ...] = (
                {"driver": "AC97", "id": "sound0", "audiodev": _AUDIO, **place},
            )
        case "ich9" | "":
            card = (
                {"driver": "ich9-intel-hda", "id": "sound0", **place},
                {"driver": "hda-duplex", "id": "codec0", "bus": "sound0.0", "audiodev": _AUDIO},
            )
        case unreachable:
            assert_never(unreachable)
    return Part(audiodevs=(backend,), devices=card)


def panic_devices(domain: Domain, slots: Slots) -> Part:
    """How the guest tells of its panic. ``hyperv`` is no device but a CPU flag (`hyperv`)."""
    devices: list[Properties] = []
    for index, asked in enumerate(domain.devices.panic_devices):
        path = f"{_DEVICES}.panicDevices[{index}]"
        match asked.model:
            case "isa" | None:
                devices.append({"driver": "pvpanic", "id": f"panic{index}"})
            case "pvpanic":
                place = slots.conventional(path)
                devices.append({"driver": "pvpanic-pci", "id": f"panic{index}", **place})
            case "hyperv":
                pass
            case unreachable:
                assert_never(unreachable)
    return Part(devices=tuple(devices))


class Display(Model, frozen=True, kw_only=True):
    """The adapter, and ``-vnc``; None: no display at all."""

    devices: tuple[Properties, ...] = ()
    vnc: Options | None = None


def display(domain: Domain, host: HostFacts, board: Family, slots: Slots) -> Display:
    """VNC on a socket. microvm has no display adapter, so none is attached there unless asked for."""
    devices = domain.devices
    if devices.autoattach_graphics_device is False or (board == "microvm" and not devices.video):
        if devices.video:
            raise refused(f"{_DEVICES}.video", "there is none with autoattachGraphicsDevice: false")
        return Display()
    vnc: Options = {
        "vnc": f"unix:{host.run_dir}/{names.VNC_SOCKET}",
        "audiodev": _AUDIO if devices.sound else None,
    }
    return Display(devices=(_adapter(_video(domain), slots),), vnc=vnc)


def _video(domain: Domain) -> Literal["vga", "cirrus", "virtio", "ramfb", "bochs"]:
    if domain.devices.video:
        return domain.devices.video.type
    bootloader = domain.firmware.bootloader if domain.firmware else None
    # OVMF has no use for VGA's legacy; KubeVirt gives it bochs, too.
    return "bochs" if bootloader and bootloader.efi else "vga"


def _adapter(
    kind: Literal["vga", "cirrus", "virtio", "ramfb", "bochs"], slots: Slots
) -> Properties:
    match kind:
        case "vga":
            memory: Properties = {"vgamem_mb": _VGA_MEMORY_MIB}
            return {"driver": "VGA", "id": "video0", **memory, **slots.video()}
        case "cirrus":
            return {"driver": "cirrus-vga", "id": "video0", **slots.video()}
        case "virtio":
            return {"driver": "virtio-vga", "id": "video0", **slots.video()}
        case "bochs":
            return {"driver": "bochs-display", "id": "video0", **slots.video()}
        case "ramfb":
            # A frame buffer in guest RAM that firmware sets up: on no bus.
            return {"driver": "ramfb", "id": "video0"}
        case unreachable:
            assert_never(unreachable)


def _socket(name: str, path: str) -> Options:
    return {"backend": "socket", "id": name, "path": path, "server": True, "wait": False}
