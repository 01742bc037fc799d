"""The real QEMU takes what we render: the examples, generated specs, taps by descriptor.

Each machine is started stopped (``-S``) under TCG, told the commands that it needs before its guest runs, and quit. That
realizes every device: wrong properties, full buses, bad addresses and missing nodes all show.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.devices import Disk
from qvirt_crds.domain import FeatureHyperv
from qvirt_crds.load import load_manifests
from qvirt_crds.report import Attachment, KernelFiles, PortForward
from qvirt_crds.validate import validate_vmi
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.backing import Backing, Image
from qvirt_launcher.facts import HostFacts
from qvirt_launcher.fds import tap_numbers
from qvirt_launcher.host import gather_host_facts
from qvirt_launcher.machine import Machine, build_machine
from qvirt_launcher.offline import offline_facts
from qvirt_launcher.render import render
from qvirt_netsetup import tap

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU"),
]

EXAMPLES: Final = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))
DEADLINE_SECONDS: Final = 30
SIZE: Final = 8 << 20
#: What the emulator says about CPU models that it can't do whole.
KNOWN: Final = ("TCG doesn't support", "doesn't support hyperthreading", "configure -smp options")


class Started:
    """A stopped QEMU and its monitor."""

    def __init__(self, machine: Machine, taps: dict[int, int]) -> None:
        self._monitor, inherited = socket.socketpair()
        self._monitor.settimeout(DEADLINE_SECONDS)
        self._file = self._monitor.makefile("rwb")
        wanted = {machine.monitor_fd: inherited.fileno(), **taps}
        for number, fd in wanted.items():
            os.dup2(fd, number, inheritable=True)
        self.process = subprocess.Popen(
            render(machine),
            pass_fds=list(wanted),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        inherited.close()
        for number in wanted:
            os.close(number)

    def greeting(self) -> bool:
        try:
            return b"QMP" in self._file.readline()
        except (ConnectionError, TimeoutError):
            return False

    def command(self, execute: str, **arguments: Any) -> Any:
        message = {"execute": execute, "arguments": arguments}
        self._file.write(json.dumps(message).encode() + b"\n")
        self._file.flush()
        while line := self._file.readline():
            reply = json.loads(line)
            if "event" not in reply:
                assert "return" in reply, f"{execute}: {reply}"
                return reply["return"]
        raise ConnectionResetError(f"{execute}: QEMU is gone")

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *exception: object) -> None:
        """Let it end by itself after ``quit``; kill it otherwise."""
        self._monitor.close()
        self._file.close()
        if exception[0] is not None:
            self.process.kill()
        try:
            _, errors = self.process.communicate(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, errors = self.process.communicate()
        #: Exit code and stderr.
        self.ended = self.process.returncode, errors.decode()


def accepted(machine: Machine, taps: dict[int, int] | None = None, ask: str = "") -> str:
    """Start, prepare, quit. Returns the answer to one HMP question.

    :raise AssertionError: QEMU refuses; the message is its own and the command line.
    """
    for step in machine.steps:
        shutil.copyfile(step.source, step.path)
    answer = ""
    # QEMU may refuse at any moment until it answers; then its exit code and stderr say why.
    with Started(machine, taps or {}) as qemu, contextlib.suppress(ConnectionError):
        if qemu.greeting():
            qemu.command("qmp_capabilities")
            for command in machine.commands:
                qemu.command(command.execute, **command.arguments)
            assert qemu.command("query-status")["status"] == "prelaunch"
            if ask:
                answer = qemu.command("human-monitor-command", **{"command-line": ask})
            qemu.command("quit")
    code, errors = qemu.ended
    complaints = [line for line in errors.splitlines() if not any(k in line for k in KNOWN)]
    assert (code, complaints) == (0, []), f"{errors}\n{' '.join(render(machine))}"
    return answer


class Files:
    """A run directory with sparse images, and one small qcow2 that is copied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._template = folder / "template.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", str(self._template), str(SIZE)],
            check=True,
            timeout=DEADLINE_SECONDS,
        )

    def raw(self, name: str) -> Image:
        path = self.folder / name
        with path.open("wb") as file:
            file.truncate(SIZE)
        return Image(path=str(path), format="raw")

    def qcow2(self, name: str) -> Image:
        path = self.folder / name
        shutil.copyfile(self._template, path)
        return Image(path=str(path), format="qcow2")

    def backing(self, disk: Disk) -> Backing:
        """Raw for what is shared, else an overlay; direct I/O as asked for (the file system has it or not)."""
        direct = disk.cache == "none" or bool(disk.shareable) or disk.io == "native"
        if disk.shareable:
            return Backing(volume=disk.name, image=self.raw(disk.name), direct=direct)
        return Backing(
            volume=disk.name,
            image=self.qcow2(f"{disk.name}.qcow2"),
            base=self.raw(f"{disk.name}.base"),
            direct=direct,
        )


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    """Not pytest's tmp_path: sockets need short paths."""
    with tempfile.TemporaryDirectory(prefix="qv") as folder:
        yield Files(Path(folder))


def facts(vmi: VirtualMachineInstance, files: Files) -> HostFacts:
    """The host as it is, with user-mode networking."""
    interfaces = vmi.spec.domain.devices.interfaces
    return gather_host_facts(
        vmi,
        accel="tcg",
        run_dir=str(files.folder),
        attachments=tuple(
            Attachment(interface=card.name, backend="user", mac=f"02:00:00:00:00:{i:02x}")
            for i, card in enumerate(interfaces)
        ),
        backings=tuple(files.backing(disk) for disk in vmi.spec.domain.devices.disks),
    )


def instance(domain: dict[str, Any], spec: dict[str, Any] | None = None) -> VirtualMachineInstance:
    """A defaulted, valid instance: 64Mi unless told otherwise, a claim for each disk."""
    domain = {"memory": {"guest": "64Mi"}, **domain}
    disks = domain.get("devices", {}).get("disks", ())
    cards = domain.get("devices", {}).get("interfaces", ())
    whole = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "a"},
        "spec": {
            "domain": {"devices": {}, **domain},
            "volumes": [
                {"name": d["name"], "persistentVolumeClaim": {"claimName": d["name"]}}
                for d in disks
            ],
            "networks": [
                {
                    "name": c["name"],
                    **({"multus": {"networkName": c["name"]}} if i else {"pod": {}}),
                }
                for i, c in enumerate(cards)
            ],
            **(spec or {}),
        },
    }
    vmi = msgspec.convert(whole, VirtualMachineInstance)
    return apply_defaults(vmi, new_uuid=lambda: "5d307ca9-b3ef-428c-8861-06e72d69f223")


# --- examples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example(path: Path, files: Files) -> None:
    for vmi in load_manifests(path.read_text(), path.name).instances:
        vmi = apply_defaults(vmi, new_uuid=lambda: "5d307ca9-b3ef-428c-8861-06e72d69f223")
        found = facts(vmi, files)
        offline = offline_facts(vmi, accel="tcg").kernel
        if offline is not None:
            kernel = next(iter(sorted(Path("/boot").glob("vmlinuz*"))), None)
            if kernel is None:
                pytest.skip("no kernel on this machine to boot directly")
            found = replace(found, kernel=KernelFiles(kernel=str(kernel), initrd=str(kernel)))
        if vmi.spec.domain.memory and vmi.spec.domain.memory.hugepages:
            pytest.skip("this machine may have no huge pages")
        accepted(build_machine(vmi, found))


# --- generated specs -------------------------------------------------------------------------------------------------

MACHINES: Final = st.sampled_from(["q35", "q35", "pc", "microvm", "pc-q35-6.2", "pc-i440fx-5.2"])
BUSES: Final = {
    "q35": ["virtio", "scsi", "sata", "usb"],
    "pc": ["virtio", "scsi", "sata", "usb", "ide"],
    "microvm": ["virtio", "scsi"],
}


def family(machine: str) -> str:
    return "microvm" if machine == "microvm" else "q35" if "q35" in machine else "pc"


@st.composite
def disks(draw: st.DrawFn, board: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for index in range(draw(st.integers(0, 6))):
        disk: dict[str, Any] = {"name": f"disk{index}"}
        kind = draw(st.sampled_from(["disk", "disk", "cdrom", "floppy"]))
        if kind == "floppy" and (board == "microvm" or sum("floppy" in d for d in found) == 2):
            kind = "disk"
        bus = draw(st.sampled_from(BUSES[board]))
        if (
            bus == "ide"
            and sum(d.get("disk", d.get("cdrom", {})).get("bus") == "ide" for d in found) == 4
        ):
            bus = "sata"
        if kind == "cdrom":
            bus = bus if bus != "virtio" else "scsi"
            disk["cdrom"] = {"bus": bus, "tray": draw(st.sampled_from(["open", "closed"]))}
        elif kind == "floppy":
            disk["floppy"] = {"readonly": draw(st.booleans())}
        else:
            disk["disk"] = {"bus": bus}
            disk["serial"] = draw(st.from_regex(r"[A-Za-z0-9_.+-]{0,36}", fullmatch=True))
            if bus in ("virtio", "scsi", "usb"):
                disk["disk"]["readonly"] = draw(st.booleans())
                sectors = draw(st.sampled_from([None, (512, 4096), (4096, 4096)]))
                if sectors:
                    disk["blockSize"] = {"custom": {"logical": sectors[0], "physical": sectors[1]}}
            if bus == "virtio" and board != "microvm":
                disk["dedicatedIOThread"] = draw(st.booleans())
            disk["shareable"] = draw(st.booleans())
            policy = draw(st.sampled_from([None, "stop", "ignore", "report", "enospace"]))
            if policy:
                disk["errorPolicy"] = policy
        if not disk.get("shareable"):
            cache = draw(st.sampled_from([None, "none", "writethrough", "writeback"]))
            if cache:
                disk["cache"] = cache
        found.append(disk)
    return found


@st.composite
def cards(draw: st.DrawFn, board: str) -> list[dict[str, Any]]:
    models = ["virtio", "e1000", "e1000e", "ne2k_pci", "pcnet", "rtl8139"]
    return [
        {
            "name": f"nic{index}",
            "bridge": {},
            "model": "virtio" if board == "microvm" else draw(st.sampled_from(models)),
            # The pod's own network can't be taken away.
            "state": draw(st.sampled_from(["up", "down"])) if index else "up",
        }
        for index in range(draw(st.integers(0, 4)))
    ]


def maybe(draw: st.DrawFn, value: Any) -> Any:
    return value if draw(st.booleans()) else None


def present(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


@st.composite
def devices(draw: st.DrawFn, board: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "disks": draw(disks(board)),
        "interfaces": draw(cards(board)),
        "autoattachSerialConsole": maybe(draw, False),
        "autoattachMemBalloon": maybe(draw, False),
        "disableHotplug": maybe(draw, True),
        "networkInterfaceMultiqueue": maybe(draw, True),
        "blockMultiQueue": maybe(draw, draw(st.booleans())),
        "rng": maybe(draw, {}),
        "panicDevices": [
            {"model": model}
            for model in draw(st.lists(st.sampled_from(["isa", "hyperv"]), max_size=1))
        ],
        "inputs": [{"name": "i", "type": "tablet", "bus": "virtio"}] if draw(st.booleans()) else [],
    }
    if board == "microvm":
        return present(found)
    found |= {
        "useVirtioTransitional": maybe(draw, True),
        "watchdog": maybe(draw, {"name": "w", "i6300esb": {}}),
        "sound": maybe(draw, {"name": "s", "model": draw(st.sampled_from(["ich9", "ac97"]))}),
    }
    if draw(st.booleans()):
        found["autoattachGraphicsDevice"] = False
    else:
        found["video"] = maybe(
            draw, {"type": draw(st.sampled_from(["vga", "cirrus", "virtio", "ramfb", "bochs"]))}
        )
    if draw(st.booleans()):
        found["panicDevices"].append({"model": "pvpanic"})
    if draw(st.booleans()):
        found["inputs"].append({"name": "u", "type": "tablet", "bus": "usb"})
    return present(found)


@st.composite
def domains(draw: st.DrawFn) -> dict[str, Any]:
    machine = draw(MACHINES)
    board = family(machine)
    found: dict[str, Any] = {
        "machine": {"type": machine},
        "memory": {"guest": draw(st.integers(32_000_000, 96_000_000))},
        "cpu": {
            "sockets": draw(st.integers(1, 2)),
            "cores": draw(st.integers(1, 2)),
            "threads": draw(st.integers(1, 2)),
            "maxSockets": 4,
            **present({"model": draw(st.sampled_from([None, "host-passthrough", "qemu64", "Nehalem"]))}),
            "features": draw(
                st.lists(
                    st.sampled_from(["aes", "x2apic", "sse4.1", "invtsc"]).flatmap(
                        lambda name: st.sampled_from(["force", "optional", "disable", "forbid"]).map(
                            lambda policy: {"name": name, "policy": policy}
                        )
                    ),
                    max_size=2,
                    unique_by=lambda feature: feature["name"],
                )
            ),
        },
        "devices": draw(devices(board)),
        "chassis": {"asset": draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20))},
        "firmware": {"serial": draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20))},
        "rebootPolicy": draw(st.sampled_from(["Reboot", "Terminate"])),
        "clock": draw(
            st.sampled_from(
                [
                    {"utc": {}},
                    {"utc": {"offsetSeconds": -7200}},
                    {"timezone": "Asia/Tokyo"},
                    {"timer": {"rtc": {"track": "guest", "tickPolicy": "catchup"}, "pit": {"present": False}}},
                ]
            )
        ),
        "features": {
            "acpi": {"enabled": draw(st.booleans()) or board == "microvm"},
            "kvm": {"hidden": draw(st.booleans())},
            "hyperv": {"relaxed": {}, "synictimer": {"direct": {}}},
        },
    }  # fmt: skip
    if board != "microvm":
        found["clock"].setdefault("timer", {"hpet": {"present": draw(st.booleans())}})
        found["firmware"]["bootloader"] = draw(
            st.sampled_from([{"bios": {"useSerial": True}}, {"efi": {"secureBoot": False}}, {}])
        )
        policy = draw(st.sampled_from([None, "shared", "auto", "supplementalPool"]))
        if policy:
            found["ioThreadsPolicy"] = policy
            found["ioThreads"] = {"supplementalPoolThreadCount": 2}
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(domains(), st.sampled_from([None, "Paused"]))
def test_generated_specs(files: Files, domain: dict[str, Any], start: str | None) -> None:
    vmi = instance(domain, {"startStrategy": start} if start else None)
    assert validate_vmi(vmi) == ()
    accepted(build_machine(vmi, facts(vmi, files)))


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
def test_particular_machines(name: str, files: Files) -> None:
    vmi = instance(PARTICULAR[name])
    assert validate_vmi(vmi) == ()
    found = facts(vmi, files)
    firmware = vmi.spec.domain.firmware
    if firmware and firmware.bootloader and firmware.bootloader.efi and found.efi is None:
        pytest.skip("needs OVMF")
    accepted(build_machine(vmi, found))


def test_qemu_reads_what_we_wrote(files: Files) -> None:
    """Strings that mean something in some grammar arrive as they are."""
    odd = "a,b=c,,d 'e' \"f\" %s \\ {{ 7*7 }} \u2028 é"
    vmi = instance({"devices": {"disks": [{"name": "d", "disk": {"bus": "virtio"}}]}})
    disk = replace(vmi.spec.domain.devices.disks[0], serial=odd)
    domain = replace(vmi.spec.domain, devices=replace(vmi.spec.domain.devices, disks=(disk,)))
    vmi = replace(
        vmi, metadata=replace(vmi.metadata, name=odd), spec=replace(vmi.spec, domain=domain)
    )
    machine = build_machine(vmi, facts(vmi, files))
    with Started(machine, {}) as qemu:
        assert qemu.greeting()
        qemu.command("qmp_capabilities")
        assert qemu.command("query-name")["name"] == f"default_{odd}"
        assert qemu.command("qom-get", path="/machine/peripheral/ua-d", property="serial") == odd
        qemu.command("quit")


def test_kernel_arguments_arrive_as_they_are(files: Files) -> None:
    kernel = next(iter(sorted(Path("/boot").glob("vmlinuz*"))), None)
    if kernel is None:
        pytest.skip("no kernel on this machine to boot directly")
    odd = " console=ttyS0,115200  a=\"b c\" 'x' -S %s"
    vmi = instance({})
    machine = replace(build_machine(vmi, facts(vmi, files)), kernel=str(kernel), kernel_args=odd)
    with Started(machine, {}) as qemu:
        assert qemu.greeting()
        qemu.command("qmp_capabilities")
        assert qemu.command("qom-get", path="/machine", property="append") == odd
        qemu.command("quit")


def test_memory_is_what_we_say(files: Files) -> None:
    vmi = instance({"memory": {"guest": "64M"}})
    answer = accepted(build_machine(vmi, facts(vmi, files)), ask="info memory_size_summary")
    assert "base memory: 64004096" in answer


def test_firmware_numbers_the_buses_as_we_do(files: Files) -> None:
    """``pciAddress: 0000:0b:00.0`` is bus 0b in the guest: asked after SeaBIOS has run."""
    vmi = instance(
        {
            "devices": {
                "disks": [{"name": "d", "disk": {"bus": "virtio", "pciAddress": "0000:0b:00.0"}}],
                "interfaces": [{"name": "n", "bridge": {}}],
            }
        }
    )
    machine = build_machine(vmi, facts(vmi, files))
    expected = {
        str(d["id"]): int(str(d["bus"])[4:])
        for d in machine.devices
        if str(d.get("bus")).startswith("pci.")
    }
    with Started(machine, {}) as qemu:
        assert qemu.greeting()
        qemu.command("qmp_capabilities")
        qemu.command("cont")
        end = time.monotonic() + DEADLINE_SECONDS
        while (found := bus_numbers(qemu.command("query-pci"))) != expected:
            assert time.monotonic() < end, f"{found} are not {expected}"
            time.sleep(0.1)
        qemu.command("quit")
    assert expected["ua-d"] == 0x0B


def bus_numbers(buses: list[dict[str, Any]]) -> dict[str, int]:
    """Device id -> number of its bus, of everything behind a bridge."""
    bridges = [d["pci_bridge"] for bus in buses for d in bus["devices"] if "pci_bridge" in d]
    return {
        device["qdev_id"]: device["bus"]
        for bridge in bridges
        for device in bridge.get("devices", ())
    }


def test_every_flag_for_kvm_is_one(files: Files) -> None:
    """KVM may be missing here, but QEMU knows the names of its CPU flags under the emulator as well."""
    states: dict[str, Any] = {
        name: {} for name in FeatureHyperv.__struct_fields__ if name != "vendorid"
    }
    vmi = instance(
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
    host = facts(vmi, files)
    kvm = build_machine(vmi, replace(host, accel="kvm"))
    assert kvm.cpu.startswith("host,")
    assert kvm.cpu.count("hv-") == 19
    with Started(build_machine(vmi, host), {}) as qemu:
        assert qemu.greeting()
        qemu.command("qmp_capabilities")
        known = {
            item["name"] for item in qemu.command("qom-list-properties", typename="max-x86_64-cpu")
        }
        qemu.command("quit")
    flags = {flag.partition("=")[0] for flag in kvm.cpu.split(",")[1:]}
    assert flags <= known


# --- network backends ------------------------------------------------------------------------------------------------


def with_card(files: Files, attachment: Attachment, cpus: int = 1) -> Machine:
    domain = {
        "cpu": {"cores": cpus},
        "devices": {
            "interfaces": [{"name": "n", "bridge": {}}],
            "networkInterfaceMultiqueue": True,
        },
    }
    vmi = instance(domain)
    return build_machine(vmi, replace(facts(vmi, files), attachments=(attachment,)))


@pytest.mark.root
@pytest.mark.parametrize("queues", [1, 2])
def test_taps_by_descriptor(files: Files, queues: int) -> None:
    """A tap lives in its namespace, QEMU somewhere else, without ``/dev/net/tun``."""
    fds = in_new_namespace(lambda: tap.create("qvtest0", queues=queues))
    attachment = Attachment(
        interface="n", backend="tap", mac="02:00:00:00:00:01", tap_fds=tuple(range(queues))
    )
    numbers = tap_numbers((attachment,))["n"]
    try:
        machine = with_card(files, attachment, cpus=queues)
        answer = accepted(machine, dict(zip(numbers, fds, strict=True)), ask="info network")
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


def test_passt_by_socket(files: Files) -> None:
    path = files.folder / "passt.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        attachment = Attachment(
            interface="n", backend="passt", mac="02:00:00:00:00:01", socket=str(path)
        )
        assert "stream" in accepted(with_card(files, attachment), ask="info network")


def test_published_ports(files: Files) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    attachment = Attachment(
        interface="n",
        backend="user",
        mac="02:00:00:00:00:01",
        publish=(PortForward(host_port=port, guest_port=22),),
    )
    answer = accepted(with_card(files, attachment), ask="info usernet")
    assert f"127.0.0.1 {port} 10.0.2.15 22" in " ".join(answer.split())


def test_huge_pages(files: Files) -> None:
    if int(Path("/proc/sys/vm/nr_hugepages").read_text()) < 32:
        pytest.skip("needs 32 free huge pages of 2 MiB")
    vmi = instance({"memory": {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}}})
    accepted(build_machine(vmi, facts(vmi, files)))
