"""Generated specs are started in the real QEMU, which must take them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qvirt_crds.validate import validate_vmi

if TYPE_CHECKING:
    from tests.launcher.render.conftest import RealQemu

pytestmark = pytest.mark.qemu

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
def test_generated_specs(qemu: RealQemu, domain: dict[str, Any], start: str | None) -> None:
    vmi = qemu.instance(domain, {"startStrategy": start} if start else None)
    assert validate_vmi(vmi) == ()
    qemu.accepts(qemu.machine(vmi))
