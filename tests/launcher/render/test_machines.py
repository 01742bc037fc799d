"""Particular machines in the real QEMU: the examples, the corners, strings, buses, network backends."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from msgspec.structs import replace

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.domain import FeatureHyperv
from qvirt_crds.load import load_manifests
from qvirt_crds.report import Attachment, KernelFiles, PortForward
from qvirt_crds.validate import validate_vmi
from qvirt_launcher.fds import tap_numbers
from qvirt_launcher.machine import Machine, build_machine
from qvirt_launcher.offline import offline_facts
from qvirt_netsetup import tap

if TYPE_CHECKING:
    from tests.launcher.render.conftest import RealQemu

pytestmark = pytest.mark.qemu

EXAMPLES: Final = sorted((Path(__file__).resolve().parents[3] / "examples").glob("*.yaml"))
DEADLINE_SECONDS: Final = 30


# --- examples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example(path: Path, qemu: RealQemu) -> None:
    for vmi in load_manifests(path.read_text(), path.name).instances:
        vmi = apply_defaults(vmi, new_uuid=lambda: "5d307ca9-b3ef-428c-8861-06e72d69f223")
        found = qemu.facts(vmi)
        offline = offline_facts(vmi, accel="tcg").kernel
        if offline is not None:
            kernel = a_kernel()
            if kernel is None:
                pytest.skip("no kernel on this machine to boot directly")
            found = replace(found, kernel=KernelFiles(kernel=str(kernel), initrd=str(kernel)))
        if vmi.spec.domain.memory and vmi.spec.domain.memory.hugepages:
            pytest.skip("this machine may have no huge pages")
        qemu.accepts(build_machine(vmi, found))


def a_kernel() -> Path | None:
    """Any Linux kernel: the demo guest's, or this machine's."""
    root = Path(__file__).resolve().parents[3]
    places = ((root / "build/guest", "*.vmlinuz"), (Path("/boot"), "vmlinuz*"))
    return next((file for folder, glob in places for file in sorted(folder.glob(glob))), None)


# --- particular machines ---------------------------------------------------------------------------------------------

PARTICULAR: Final[dict[str, dict[str, Any]]] = {
    "secure boot": {
        "firmware": {"bootloader": {"efi": {}}},
        "features": {"smm": {}},
    },
    "efi on pc": {
        "machine": {"type": "pc"},
        "firmware": {"bootloader": {"efi": {"secureBoot": False}}},
    },
    "more sata disks than the board has ports": {
        "devices": {"disks": [{"name": f"d{i}", "disk": {"bus": "sata"}} for i in range(14)]},
    },
    "forty disks": {
        "devices": {"disks": [{"name": f"d{i}", "disk": {"bus": "virtio"}} for i in range(40)]},
    },
    "twenty transitional disks": {
        "devices": {
            "useVirtioTransitional": True,
            "disks": [{"name": f"d{i}", "disk": {"bus": "virtio"}} for i in range(18)],
        },
    },
    "fifteen usb devices": {
        "devices": {"disks": [{"name": f"d{i}", "disk": {"bus": "usb"}} for i in range(15)]},
    },
    "addresses and indices": {
        "devices": {
            "disks": [{"name": "d", "disk": {"bus": "virtio", "pciAddress": "0000:0b:00.0"}}],
            "interfaces": [
                {"name": "a", "bridge": {}, "pciAddress": "0000:00:0a.0", "acpiIndex": 7},
                {"name": "b", "bridge": {}, "model": "e1000", "pciAddress": "0000:03:00.0"},
                {"name": "c", "bridge": {}, "bootOrder": 1, "acpiIndex": 8},
            ],
        },
    },
    "addresses on pc": {
        "machine": {"type": "pc"},
        "devices": {
            "disks": [{"name": "d", "disk": {"bus": "virtio", "pciAddress": "0000:00:03.0"}}],
            "interfaces": [{"name": "a", "bridge": {}, "bootOrder": 2}],
        },
    },
    "a cpu with demands": {
        "cpu": {
            "model": "host-passthrough",
            "features": [{"name": "aes", "policy": "require"}],
        },
    },
    "many cpus": {"cpu": {"sockets": 2, "cores": 4, "threads": 2, "maxSockets": 8}},
    "as much as a gigabyte less one byte": {"memory": {"guest": 2**30 - 1}},
}


@pytest.mark.parametrize("name", PARTICULAR)
def test_particular_machines(name: str, qemu: RealQemu) -> None:
    vmi = qemu.instance(PARTICULAR[name])
    assert validate_vmi(vmi) == ()
    found = qemu.facts(vmi)
    firmware = vmi.spec.domain.firmware
    if firmware and firmware.bootloader and firmware.bootloader.efi and found.efi is None:
        pytest.skip("needs OVMF")
    qemu.accepts(build_machine(vmi, found))


def test_qemu_reads_what_we_wrote(qemu: RealQemu) -> None:
    """Strings that mean something in some grammar arrive as they are."""
    odd = "a,b=c,,d 'e' \"f\" %s \\ {{ 7*7 }} \u2028 é"
    vmi = qemu.instance({"devices": {"disks": [{"name": "d", "disk": {"bus": "virtio"}}]}})
    disk = replace(vmi.spec.domain.devices.disks[0], serial=odd)
    domain = replace(vmi.spec.domain, devices=replace(vmi.spec.domain.devices, disks=(disk,)))
    vmi = replace(
        vmi, metadata=replace(vmi.metadata, name=odd), spec=replace(vmi.spec, domain=domain)
    )
    machine = qemu.machine(vmi)
    with qemu.start(machine) as started:
        assert started.greeting()
        started.command("qmp_capabilities")
        assert started.command("query-name")["name"] == f"default_{odd}"
        assert started.command("qom-get", path="/machine/peripheral/ua-d", property="serial") == odd
        started.command("quit")


def test_kernel_arguments_arrive_as_they_are(qemu: RealQemu) -> None:
    kernel = a_kernel()
    if kernel is None:
        pytest.skip("no kernel on this machine to boot directly")
    odd = " console=ttyS0,115200  a=\"b c\" 'x' -S %s"
    vmi = qemu.instance({})
    machine = replace(qemu.machine(vmi), kernel=str(kernel), kernel_args=odd)
    with qemu.start(machine) as started:
        assert started.greeting()
        started.command("qmp_capabilities")
        assert started.command("qom-get", path="/machine", property="append") == odd
        started.command("quit")


def test_memory_is_what_we_say(qemu: RealQemu) -> None:
    vmi = qemu.instance({"memory": {"guest": "64M"}})
    answer = qemu.accepts(qemu.machine(vmi), ask="info memory_size_summary")
    assert "base memory: 64004096" in answer


def test_firmware_numbers_the_buses_as_we_do(qemu: RealQemu) -> None:
    """``pciAddress: 0000:0b:00.0`` is bus 0b in the guest: asked after SeaBIOS has run."""
    vmi = qemu.instance(
        {
            "devices": {
                "disks": [{"name": "d", "disk": {"bus": "virtio", "pciAddress": "0000:0b:00.0"}}],
                "interfaces": [{"name": "n", "bridge": {}}],
            }
        }
    )
    machine = qemu.machine(vmi)
    expected = {
        str(d["id"]): int(str(d["bus"])[4:])
        for d in machine.devices
        if str(d.get("bus")).startswith("pci.")
    }
    with qemu.start(machine) as started:
        assert started.greeting()
        started.command("qmp_capabilities")
        started.command("cont")
        end = time.monotonic() + DEADLINE_SECONDS
        while (found := bus_numbers(started.command("query-pci"))) != expected:
            assert time.monotonic() < end, f"{found} are not {expected}"
            time.sleep(0.1)
        started.command("quit")
    assert expected["ua-d"] == 0x0B


def bus_numbers(buses: list[dict[str, Any]]) -> dict[str, int]:
    """Device id -> number of its bus, of everything behind a bridge."""
    bridges = [d["pci_bridge"] for bus in buses for d in bus["devices"] if "pci_bridge" in d]
    return {
        device["qdev_id"]: device["bus"]
        for bridge in bridges
        for device in bridge.get("devices", ())
    }


def test_every_flag_for_kvm_is_one(qemu: RealQemu) -> None:
    """KVM may be missing here, but QEMU knows the names of its CPU flags under the emulator as well."""
    states: dict[str, Any] = {
        name: {} for name in FeatureHyperv.__struct_fields__ if name != "vendorid"
    }
    vmi = qemu.instance(
        {
            "features": {
                "hyperv": {**states, "synictimer": {"direct": {}}, "tlbflush": {"direct": {}, "extended": {}},
                           "vendorid": {"vendorid": "a b;c"}},
                "apic": {"endOfInterrupt": True},
                "kvm": {"hidden": True},
                "pvspinlock": {"enabled": False},
            },
            "clock": {"timer": {"kvm": {"present": False}, "hyperv": {}, "pit": {"tickPolicy": "discard"}}},
            "devices": {"panicDevices": [{"model": "hyperv"}]},
        }
    )  # fmt: skip
    host = qemu.facts(vmi)
    kvm = build_machine(vmi, replace(host, accel="kvm"))
    assert kvm.cpu.startswith("host,")
    assert kvm.cpu.count("hv-") == 19
    with qemu.start(build_machine(vmi, host)) as started:
        assert started.greeting()
        started.command("qmp_capabilities")
        known = {
            item["name"]
            for item in started.command("qom-list-properties", typename="max-x86_64-cpu")
        }
        started.command("quit")
    flags = {flag.partition("=")[0] for flag in kvm.cpu.split(",")[1:]}
    assert flags <= known


# --- network backends ------------------------------------------------------------------------------------------------


def with_card(qemu: RealQemu, attachment: Attachment, cpus: int = 1) -> Machine:
    domain = {
        "cpu": {"cores": cpus},
        "devices": {
            "interfaces": [{"name": "n", "bridge": {}}],
            "networkInterfaceMultiqueue": True,
        },
    }
    vmi = qemu.instance(domain)
    return build_machine(vmi, replace(qemu.facts(vmi), attachments=(attachment,)))


@pytest.mark.root
@pytest.mark.parametrize("queues", [1, 2])
def test_taps_by_descriptor(qemu: RealQemu, queues: int) -> None:
    """A tap lives in its namespace, QEMU somewhere else, without ``/dev/net/tun``."""
    fds = in_new_namespace(lambda: tap.create("qvtest0", queues=queues))
    attachment = Attachment(
        interface="n", backend="tap", mac="02:00:00:00:00:01", tap_fds=tuple(range(queues))
    )
    numbers = tap_numbers((attachment,))["n"]
    try:
        machine = with_card(qemu, attachment, cpus=queues)
        answer = qemu.accepts(machine, dict(zip(numbers, fds, strict=True)), ask="info network")
    finally:
        for fd in fds:
            os.close(fd)
    assert answer.count("fd=") == queues


def in_new_namespace(work: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
    """Run in a thread with a network namespace of its own, which ends with the last descriptor made there."""
    results: list[tuple[int, ...]] = []

    def body() -> None:
        assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0
        results.append(work())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    (result,) = results
    return result


def test_passt_by_socket(qemu: RealQemu) -> None:
    path = qemu.files.folder / "passt.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        attachment = Attachment(
            interface="n", backend="passt", mac="02:00:00:00:00:01", socket=str(path)
        )
        assert "stream" in qemu.accepts(with_card(qemu, attachment), ask="info network")


def test_published_ports(qemu: RealQemu) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    attachment = Attachment(
        interface="n",
        backend="user",
        mac="02:00:00:00:00:01",
        publish=(PortForward(host_port=port, guest_port=22),),
    )
    answer = qemu.accepts(with_card(qemu, attachment), ask="info usernet")
    assert f"127.0.0.1 {port} 10.0.2.15 22" in " ".join(answer.split())


def test_huge_pages(qemu: RealQemu) -> None:
    if int(Path("/proc/sys/vm/nr_hugepages").read_text()) < 32:
        pytest.skip("needs 32 free huge pages of 2 MiB")
    vmi = qemu.instance({"memory": {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}}})
    qemu.accepts(qemu.machine(vmi))
