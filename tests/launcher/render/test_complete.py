"""Every word of the contract's closed sets becomes something that QEMU is told. A new word fails here until it is built."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from qvirt_crds import devices, domain
from qvirt_crds.defaults import apply_defaults
from qvirt_crds.validate import validate_vmi
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.board import TRANSLATED_MIB
from qvirt_launcher.machine import Machine, build_machine
from qvirt_launcher.offline import offline_facts
from qvirt_launcher.render import render
from qvirt_launcher.targets import prefix

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def machine(
    parts: Mapping[str, Any], /, *, spec: Mapping[str, Any] | None = None, **facts: Any
) -> Machine:
    """A machine with 128Mi and these parts of ``spec.domain``; disks get a claim as volume."""
    whole = {"memory": {"guest": "128Mi"}, "devices": {}, **parts}
    disks = whole["devices"].get("disks", ())
    cards = whole["devices"].get("interfaces", ())
    vmi = msgspec.convert(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "a"},
            "spec": {
                "domain": whole,
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
        },
        VirtualMachineInstance,
    )
    vmi = apply_defaults(vmi, new_uuid=lambda: "5d307ca9-b3ef-428c-8861-06e72d69f223")
    assert validate_vmi(vmi) == ()
    return build_machine(vmi, offline_facts(vmi, now=NOW, **facts))


def words(*annotations: object) -> list[str]:
    """The strings of Literals, wherever they stand in these annotations."""
    found: list[str] = []
    for annotation in annotations:
        for argument in typing.get_args(annotation):
            found += [argument] if isinstance(argument, str) else words(argument)
    return [word for word in dict.fromkeys(found) if word]


def drivers(built: Machine) -> list[str]:
    return [str(device["driver"]) for device in built.devices]


@pytest.mark.parametrize("bus", words(devices.DiskBus))
@pytest.mark.parametrize("kind", ["disk", "cdrom", "lun"])
def test_every_disk_bus(bus: str, kind: str) -> None:
    if (kind == "cdrom" and bus == "virtio") or (kind == "lun" and bus != "scsi"):
        pytest.skip("refused by the contract")
    board = "pc" if bus == "ide" else "q35"
    built = machine(
        {"machine": {"type": board}, "devices": {"disks": [{"name": "d", kind: {"bus": bus}}]}}
    )
    (disk,) = (device for device in built.devices if device.get("id") == "ua-d")
    assert disk["drive"] == built.targets["d"] == prefix(bus) + "a"  # type: ignore[arg-type]
    assert disk["bootindex"] == 1


@pytest.mark.parametrize("board", ["q35", "pc"])
def test_floppies(board: str) -> None:
    disks = [
        {"name": "a", "floppy": {}},
        {"name": "b", "floppy": {"readonly": True}, "bootOrder": 1},
    ]
    built = machine({"machine": {"type": board}, "devices": {"disks": disks}})
    assert drivers(built).count("floppy") == 2
    assert {"driver": "isa-fdc", "property": "bootindexB", "value": 1} in built.globals


MODELS = words(devices.InterfaceModel)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("board", ["q35", "pc"])
def test_every_network_card(model: str, board: str) -> None:
    card = {"name": "n", "bridge": {}, "model": model}
    built = machine(
        {"machine": {"type": board}, "devices": {"interfaces": [card]}}, qemu_version=(9, 0, 0)
    )
    (device,) = (device for device in built.devices if device.get("netdev") == "net-n")
    assert str(device["driver"]).startswith(model)


FIELDS: dict[
    str, tuple[object, typing.Callable[[str], dict[str, Any]], typing.Callable[[Machine], object]]
] = {
    "watchdog": (
        devices.WatchdogAction,
        lambda word: {"devices": {"watchdog": {"name": "w", "i6300esb": {"action": word}}}},
        lambda built: built.actions["watchdog"],
    ),
    "sound": (
        msgspec.structs.fields(devices.Sound)[1].type,
        lambda word: {"devices": {"sound": {"name": "s", "model": word}}},
        lambda built: [d for d in drivers(built) if d in ("AC97", "ich9-intel-hda")],
    ),
    "video": (
        msgspec.structs.fields(devices.Video)[0].type,
        lambda word: {"devices": {"video": {"type": word}}},
        lambda built: [d["driver"] for d in built.devices if d.get("id") == "video0"],
    ),
    "input": (
        msgspec.structs.fields(devices.Input)[1].type,
        lambda word: {"devices": {"inputs": [{"name": "i", "type": "tablet", "bus": word}]}},
        lambda built: [d for d in drivers(built) if "tablet" in d],
    ),
    "panic": (
        msgspec.structs.fields(devices.PanicDevice)[0].type,
        lambda word: {"devices": {"panicDevices": [{"model": word}]}},
        lambda built: ([d for d in drivers(built) if "panic" in d], "hv-crash" in built.cpu),
    ),
    "error policy": (
        next(f.type for f in msgspec.structs.fields(devices.Disk) if f.name == "error_policy"),
        lambda word: {
            "devices": {"disks": [{"name": "d", "disk": {"bus": "virtio"}, "errorPolicy": word}]}
        },
        lambda built: [d.get("werror") for d in built.devices if d.get("id") == "ua-d"],
    ),
    "cache": (
        next(f.type for f in msgspec.structs.fields(devices.Disk) if f.name == "cache"),
        lambda word: {
            "devices": {"disks": [{"name": "d", "disk": {"bus": "virtio"}, "cache": word}]}
        },
        lambda built: (
            [d.get("write-cache") for d in built.devices if d.get("id") == "ua-d"],
            [n["cache"] for n in built.blockdevs],
        ),
    ),
    "io": (
        next(f.type for f in msgspec.structs.fields(devices.Disk) if f.name == "io"),
        lambda word: {"devices": {"disks": [{"name": "d", "disk": {"bus": "virtio"}, "io": word}]}},
        lambda built: [n.get("aio") for n in built.blockdevs],
    ),
    "feature policy": (
        domain.FeaturePolicy,
        lambda word: {"cpu": {"model": "Nehalem", "features": [{"name": "aes", "policy": word}]}},
        lambda built: built.cpu,
    ),
    "io threads": (
        next(
            f.type for f in msgspec.structs.fields(domain.Domain) if f.name == "io_threads_policy"
        ),
        lambda word: {
            "ioThreadsPolicy": word,
            "cpu": {"cores": 1},
            "ioThreads": {"supplementalPoolThreadCount": 3},
            "devices": {"disks": [{"name": f"d{i}", "disk": {"bus": "virtio"}} for i in range(5)]},
        },
        lambda built: [d["iothread"] for d in built.devices if "iothread" in d],
    ),
    "reboot": (
        next(f.type for f in msgspec.structs.fields(domain.Domain) if f.name == "reboot_policy"),
        lambda word: {"rebootPolicy": word},
        lambda built: built.actions["reboot"],
    ),
}
#: Words that mean the same to QEMU: there is no "maybe" and no "or else" for one CPU flag (see `cpu`).
SAME = {"feature policy": {"force", "optional"}, "feature policy off": {"disable", "forbid"}}


@pytest.mark.parametrize("field", FIELDS)
def test_every_word_is_told_and_told_apart(field: str) -> None:
    annotation, parts, told = FIELDS[field]
    seen: dict[str, str] = {}
    for word in words(annotation):
        what = repr(told(machine(parts(word))))
        twin = seen.get(what)
        assert what not in ("None", "[]", "[None]"), f"{word} is not told"
        assert twin is None or any({word, twin} <= same for same in SAME.values()), (
            f"{word} and {twin} are the same"
        )
        seen[what] = word


@pytest.mark.parametrize(
    "feature", [f.encode_name for f in msgspec.structs.fields(domain.FeatureHyperv)]
)
def test_every_enlightenment(feature: str) -> None:
    value = {"vendorid": "abc"} if feature == "vendorid" else {}
    without = machine({"features": {"hyperv": {}}}).cpu
    assert machine({"features": {"hyperv": {feature: value}}}).cpu != without
    assert machine({"features": {"hyperv": {feature: {**value, "enabled": False}}}}).cpu == without
    noted = machine({"features": {"hyperv": {feature: value}}}, accel="tcg")
    assert noted.cpu == "max"
    (note,) = noted.notes
    assert "Hyper-V" in note


@pytest.mark.parametrize("timer", [f.encode_name for f in msgspec.structs.fields(domain.Timers)])
def test_every_timer(timer: str) -> None:
    def told(value: dict[str, Any]) -> tuple[str, ...]:
        return render(machine({"clock": {"timer": {timer: value}}}))

    if timer == "rtc":
        assert told({"track": "guest"}) != told({"track": "wall"}) != told({})
        assert told({"tickPolicy": "catchup"}) != told({})
        return
    assert told({"present": True}) != told({"present": False})


@pytest.mark.parametrize("accel", ["kvm", "tcg"])
@pytest.mark.parametrize("board", ["q35", "pc", "microvm", "pc-q35-7.2", "pc-i440fx-7.2"])
def test_every_machine_type_and_accelerator(board: str, accel: str) -> None:
    argv = render(machine({"machine": {"type": board}}, accel=accel))
    assert argv[argv.index("-machine") + 1].startswith(f"type={board},")
    # What is translated has a bound: it is memory of the pod's.
    bound = {"kvm": "", "tcg": f",tb-size={TRANSLATED_MIB}"}[accel]
    assert argv[argv.index("-accel") + 1] == f"accel={accel}{bound}"
