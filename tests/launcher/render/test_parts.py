"""The rules of single parts, and what each refuses: field, cause, remedy."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.errors import SpecError
from qvirt_crds.quantity import parse_bytes
from qvirt_crds.report import Attachment, PortForward
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.arguments import Properties
from qvirt_launcher.backing import Backing, CopyFile, Image
from qvirt_launcher.errors import HostError
from qvirt_launcher.facts import HostFacts
from qvirt_launcher.iothreads import assign_threads
from qvirt_launcher.machine import Machine, build_machine
from qvirt_launcher.memory import plan_memory
from qvirt_launcher.offline import offline_facts
from qvirt_launcher.slots import slots_of
from qvirt_launcher.targets import letters

NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)


def instance(
    domain: Mapping[str, Any], spec: Mapping[str, Any] | None = None
) -> VirtualMachineInstance:
    domain = {"memory": {"guest": "128Mi"}, "devices": {}, **domain}
    devices = domain["devices"]
    whole = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "a"},
        "spec": {
            "domain": domain,
            "volumes": [
                {"name": d["name"], "persistentVolumeClaim": {"claimName": d["name"]}}
                for d in devices.get("disks", ())
            ],
            "networks": [
                {"name": c["name"], "multus": {"networkName": c["name"]}}
                for c in devices.get("interfaces", ())
            ],
            **(spec or {}),
        },
    }
    vmi = msgspec.convert(whole, VirtualMachineInstance)
    return apply_defaults(vmi, new_uuid=lambda: "5d307ca9-b3ef-428c-8861-06e72d69f223")


def build(
    domain: Mapping[str, Any], spec: Mapping[str, Any] | None = None, /, **facts: Any
) -> Machine:
    vmi = instance(domain, spec)
    return build_machine(vmi, replace(offline_facts(vmi, now=NOW), **facts))


def device(built: Machine, name: str) -> Properties:
    (found,) = (d for d in built.devices if d.get("id") == name)
    return found


def node(built: Machine, name: str) -> Properties:
    (found,) = (n for n in built.blockdevs if n["node-name"] == name)
    return found


def disk(**fields: Any) -> dict[str, Any]:
    return {"devices": {"disks": [{"name": "d", "disk": {"bus": "virtio"}, **fields}]}}


def card(**fields: Any) -> dict[str, Any]:
    return {"devices": {"interfaces": [{"name": "n", "bridge": {}, **fields}]}}


# --- memory ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 2**45), st.sampled_from([None, "2Mi", "1Gi"]))
def test_a_guest_never_gets_less_memory_than_it_asked_for(asked: int, page: str | None) -> None:
    memory: dict[str, Any] = {"guest": asked}
    if page:
        memory["hugepages"] = {"pageSize": page}
    unit = parse_bytes(page) if page else 8192
    size = plan_memory(instance({"memory": memory}).spec.domain).size
    assert asked <= size < asked + unit
    assert size % unit == 0


def test_64m_is_not_64mi() -> None:
    assert build({"memory": {"guest": "64M"}}).memory == {"size": "64004096B"}
    assert build({"memory": {"guest": "64Mi"}}).memory == {"size": "67108864B"}


def test_huge_pages_are_taken_at_once_and_not_reported_free() -> None:
    built = build({"memory": {"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}}})
    assert built.board["memory-backend"] == "ram"
    assert {"hugetlb": True, "hugetlbsize": 2 << 20, "prealloc": True}.items() <= built.objects[
        0
    ].items()
    assert device(built, "balloon0")["free-page-reporting"] is False


# --- places ----------------------------------------------------------------------------------------------------------


def test_an_address_is_kept_and_nothing_else_gets_it() -> None:
    devices = {
        "disks": [
            {"name": "a", "disk": {"bus": "virtio"}},
            {"name": "b", "disk": {"bus": "virtio", "pciAddress": "0000:01:00.0"}},
        ],
        "interfaces": [
            {"name": "n", "bridge": {}},
            {"name": "m", "bridge": {}, "model": "e1000", "pciAddress": "0000:00:08.0"},
            {"name": "o", "bridge": {}, "model": "e1000"},
        ],
    }
    built = build({"devices": devices})
    assert device(built, "ua-b")["bus"] == "pci.1"
    assert device(built, "nic-n")["bus"] == "pci.2"
    assert device(built, "nic-m")["addr"] == "0x8"
    assert device(built, "nic-o")["addr"] == "0x9"
    places = [(d["bus"], d["addr"]) for d in built.devices if "addr" in d]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    ("board", "address", "why"),
    [
        ("q35", "0000:31:00.0", "buses end at 30"),
        ("q35", "0000:05:01.0", "slot 00 only"),
        ("q35", "0000:00:01.0", "slots 08-1e are free"),
        ("q35", "0000:05:00.1", "is no PCI address"),
        ("q35", "nonsense", "is no PCI address"),
        ("pc", "0000:05:00.0", "bus 00 only"),
        ("pc", "0000:00:02.0", "slots 03-1f are free"),
        ("microvm", "0000:00:05.0", "microvm has no PCI"),
    ],
)
def test_places_that_do_not_exist(board: str, address: str, why: str) -> None:
    with pytest.raises(SpecError, match=why) as error:
        build({"machine": {"type": board}, **card(pciAddress=address)})
    assert error.value.causes[0].path == "spec.domain.devices.interfaces[0].pciAddress"


def test_two_devices_at_one_address() -> None:
    devices = {
        "disks": [{"name": "d", "disk": {"bus": "virtio", "pciAddress": "05:00.0"}}],
        "interfaces": [{"name": "n", "bridge": {}, "pciAddress": "0000:05:00.0"}],
    }
    with pytest.raises(SpecError, match=r"is the address of spec.domain.devices.disks\[0\]"):
        build({"devices": devices})


@pytest.mark.parametrize(("board", "many"), [("q35", 60), ("pc", 40), ("microvm", 30)])
def test_too_many_devices(board: str, many: int) -> None:
    disks = [{"name": f"d{i}", "disk": {"bus": "virtio"}} for i in range(many)]
    with pytest.raises(SpecError, match=r"disks\[\d+\]: .*(more than|slots|at most)"):
        build({"machine": {"type": board}, "devices": {"disks": disks}})


@given(st.lists(st.sampled_from(["virtio", "express", "conventional"]), max_size=20), st.booleans())
def test_no_place_is_given_twice(kinds: list[str], transitional: bool) -> None:
    for board in ("q35", "pc"):
        slots = slots_of(board, acpi=True, transitional=transitional, wishes=())
        given_out = [getattr(slots, kind)("path") for kind in kinds] + [slots.video()]
        given_out += slots.bridges()
        places = [(d["bus"], d["addr"]) for d in given_out]
        assert len(set(places)) == len(places)
        buses = {d["id"] for d in slots.bridges()} | {"pcie.0", "pci.0"}
        assert {d["bus"] for d in given_out} <= buses


@pytest.mark.parametrize(
    ("memory", "cards", "free"), [("1Gi", 1, 4), ("1Gi", 4, 3), ("3Gi", 1, 12), ("1Gi", 0, 5)]
)
def test_room_is_kept_for_what_comes_later(memory: str, cards: int, free: int) -> None:
    interfaces = [{"name": f"n{i}", "bridge": {}} for i in range(cards)]
    devices: dict[str, Any] = {"interfaces": interfaces, "autoattachPodInterface": False}
    built = build({"memory": {"guest": memory}, "devices": devices})
    ports = {d["id"] for d in built.devices if d["driver"] == "pcie-root-port"}
    assert len(ports - {d.get("bus") for d in built.devices}) == free
    bare = build({"memory": {"guest": memory}, "devices": {**devices, "disableHotplug": True}})
    ports = {d["id"] for d in bare.devices if d["driver"] == "pcie-root-port"}
    assert ports <= {d.get("bus") for d in bare.devices}
    assert "scsi0" not in {d.get("id") for d in bare.devices}


def test_turning_a_display_off_moves_nothing_else() -> None:
    def places(devices: dict[str, Any]) -> dict[object, object]:
        return {
            d.get("id"): d.get("bus")
            for d in build({"devices": devices}).devices
            if d.get("id") != "video0"
        }

    assert places({}) == places({"autoattachGraphicsDevice": False})


# --- disks -----------------------------------------------------------------------------------------------------------


def test_letters() -> None:
    assert [letters(i) for i in (0, 25, 26, 27, 701, 702)] == ["a", "z", "aa", "ab", "zz", "aaa"]


def test_names_share_a_count_across_buses() -> None:
    buses = ["sata", "virtio", "scsi", "usb", "virtio"]
    disks = [{"name": bus + str(i), "disk": {"bus": bus}} for i, bus in enumerate(buses)]
    built = build({"devices": {"disks": disks}})
    assert list(built.targets.values()) == ["sda", "vda", "sdb", "sdc", "vdb"]
    assert device(built, "ua-scsi2")["lun"] == 1


def test_an_image_header_never_decides_what_is_opened() -> None:
    overlay = Backing(
        volume="d",
        image=Image(path="/top", format="qcow2"),
        base=Image(path="/base", format="qcow2"),
    )
    built = build(disk(), backings=(overlay,))
    assert node(built, "vda")["backing"] == "vda-base"
    assert node(built, "vda-base")["backing"] is None
    assert node(built, "vda-base-file")["read-only"] is True
    assert {n["driver"] for n in built.blockdevs} == {"file", "qcow2"}


def test_the_longest_name_of_a_volume_makes_no_node_too_long() -> None:
    disks = [{"name": f"{i:02}{'x' * 61}", "cdrom": {"bus": "scsi"}} for i in range(60)]
    built = build({"devices": {"disks": disks}})
    assert all(len(str(n["node-name"])) <= 31 for n in built.blockdevs)


@pytest.mark.parametrize(
    ("asked", "direct", "cache"),
    [
        ({}, True, ("on", True)),
        ({}, False, ("off", False)),
        ({"cache": "none"}, True, ("on", True)),
        ({"cache": "writethrough"}, True, ("off", False)),
        ({"cache": "writeback"}, True, ("on", False)),
        ({"shareable": True}, True, ("on", True)),
    ],
)
def test_cache(asked: dict[str, Any], direct: bool, cache: tuple[str, bool]) -> None:
    backing = Backing(volume="d", image=Image(path="/d", format="raw"), direct=direct)
    built = build(disk(**asked), backings=(backing,))
    options = node(built, "vda-file")["cache"]
    assert isinstance(options, dict)
    assert (device(built, "ua-d")["write-cache"], options["direct"]) == cache


@pytest.mark.parametrize(
    ("asked", "image", "why"),
    [
        ({"cache": "none"}, "raw", "doesn't support: leave it out"),
        ({"shareable": True}, "raw", "doesn't support: leave it out"),
        ({"shareable": True, "cache": "writeback"}, "raw", "use none"),
        ({"io": "native"}, "raw", "native needs cache none"),
        ({"shareable": True, "cache": "none"}, "qcow2", "(use raw|doesn't support)"),
    ],
)
def test_what_a_file_can_not_do(asked: dict[str, Any], image: str, why: str) -> None:
    backing = Backing(volume="d", image=Image(path="/d", format=image))  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=why):
        build(disk(**asked), backings=(backing,))


def test_a_shared_image_is_raw() -> None:
    backing = Backing(volume="d", image=Image(path="/d", format="qcow2"), direct=True)
    with pytest.raises(SpecError, match="qcow2 image can't be shared"):
        build(disk(shareable=True), backings=(backing,))


def test_block_devices_are_opened_as_such_with_native_io() -> None:
    backing = Backing(volume="d", image=Image(path="/dev/x", format="raw", block=True), direct=True)
    opened = node(build(disk(), backings=(backing,)), "vda-file")
    assert (opened["driver"], opened["aio"], opened["discard"]) == (
        "host_device",
        "native",
        "unmap",
    )


@pytest.mark.parametrize(
    ("asked", "backing", "io_uring", "how"),
    [
        ({}, {"direct": True}, True, "io_uring"),
        ({}, {"direct": True}, False, None),
        ({}, {"direct": True, "allocated": True}, False, "native"),
        ({}, {"direct": True, "allocated": True}, True, "native"),
        ({}, {"direct": True, "block": True}, True, "native"),
        ({"io": "threads"}, {"direct": True, "block": True}, True, "threads"),
        ({"io": "native"}, {"direct": True}, True, "native"),
        ({"disk": {"bus": "virtio", "readonly": True}}, {"direct": True}, False, "native"),
        ({"cache": "writeback"}, {"direct": True, "allocated": True}, True, None),
        ({}, {"direct": False, "allocated": True}, True, None),
    ],
)
def test_how_files_are_waited_for(
    asked: dict[str, Any], backing: dict[str, bool], io_uring: bool, how: str | None
) -> None:
    direct = backing.pop("direct")
    image = Image(path="/d", format="raw", **backing)
    made = build(
        disk(**asked),
        backings=(Backing(volume="d", image=image, direct=direct),),
        io_uring=io_uring,
    )
    assert node(made, "vda-file").get("aio") == how


def test_an_overlays_base_is_only_read() -> None:
    overlay = Backing(
        volume="d",
        image=Image(path="/d", format="qcow2"),
        base=Image(path="/base", format="qcow2"),
        direct=True,
    )
    made = build(disk(), backings=(overlay,))
    assert node(made, "vda-base-file")["aio"] == "native"
    assert "aio" not in node(made, "vda-file")


@pytest.mark.parametrize(
    ("disks", "why"),
    [
        ([{"name": "d", "lun": {"bus": "scsi"}}], "SCSI block device"),
        ([{"name": "d", "lun": {"bus": "sata"}}], "needs the bus scsi"),
        ([{"name": "d", "lun": {"bus": "usb"}}], "needs the bus scsi"),
        ([{"name": "d", "disk": {"bus": "sata", "readonly": True}}], "can't be read-only"),
        ([{"name": "d", "disk": {"bus": "ide"}}], "q35 has no IDE: use sata"),
        ([{"name": "d", "disk": {"bus": "scsi"}, "serial": "x" * 37}], "36 characters"),
        (
            [{"name": f"d{i}", "disk": {"bus": "usb"}} for i in range(16)],
            "more than 15 devices on usb",
        ),
        ([{"name": f"d{i}", "floppy": {}} for i in range(3)], "more than 2 devices on floppy"),
        ([{"name": "d", "cdrom": {"bus": "virtio"}}], "only hard disks"),
        ([{"name": "d", "floppy": {"tray": "open"}}], "have none"),
    ],
)
def test_what_a_bus_can_not_do(disks: list[dict[str, Any]], why: str) -> None:
    domain = {"devices": {"disks": disks}}
    backings = tuple(Backing(volume=d["name"], image=Image(path="/d", format="raw")) for d in disks)
    with pytest.raises(SpecError, match=why) as error:
        build(domain, backings=backings)
    assert error.value.causes[0].path.startswith("spec.domain.devices.disks[")


@pytest.mark.parametrize(
    "kind", [{"disk": {"bus": "sata"}}, {"disk": {"bus": "usb"}}, {"floppy": {}}]
)
def test_what_microvm_does_not_have(kind: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="machine type microvm has no"):
        build({"machine": {"type": "microvm"}, "devices": {"disks": [{"name": "d", **kind}]}})


def test_an_empty_drive() -> None:
    domain = {"devices": {"disks": [{"name": "d", "cdrom": {"bus": "sata", "tray": "open"}}]}}
    built = build(domain, backings=())
    assert "drive" not in device(built, "ua-d")
    assert built.blockdevs == ()
    assert [c.execute for c in built.commands] == ["blockdev-open-tray"]


def test_a_disk_without_a_prepared_volume() -> None:
    with pytest.raises(HostError, match="volume d was not prepared"):
        build(disk(), backings=())


@pytest.mark.parametrize(
    ("policy", "disks", "cores", "expected"),
    [
        (None, [], 1, {}),
        (None, [False, False], 1, {"d0": 1, "d1": 1}),
        (None, [True, False], 1, {"d0": 2, "d1": 1}),
        ("shared", [False, False, True], 1, {"d0": 1, "d1": 1, "d2": 2}),
        ("auto", [False] * 3, 1, {"d0": 1, "d1": 2, "d2": 1}),
        ("auto", [True, False, False], 1, {"d0": 2, "d1": 1, "d2": 1}),
        ("auto", [False] * 3, 4, {"d0": 1, "d1": 2, "d2": 3}),
        ("supplementalPool", [False] * 3, 4, {"d0": 1, "d1": 2, "d2": 1}),
        ("shared", [True], 1, {"d0": 1}),
    ],
)
def test_io_threads(
    policy: str | None, disks: list[bool], cores: int, expected: dict[str, int]
) -> None:
    domain = {
        **({"ioThreadsPolicy": policy} if policy else {}),
        "ioThreads": {"supplementalPoolThreadCount": 2},
        "cpu": {"cores": cores},
        "devices": {
            "disks": [
                {"name": f"d{i}", "disk": {"bus": "virtio"}, "dedicatedIOThread": own}
                for i, own in enumerate(disks)
            ]
        },
    }
    threads = {name: f"iothread{number}" for name, number in expected.items()}
    assert assign_threads(instance(domain).spec.domain) == threads
    assert {o["id"] for o in build(domain).objects} == set(threads.values())


def test_a_microvm_has_no_io_thread_of_its_own_accord() -> None:
    domain = {
        "machine": {"type": "microvm"},
        "devices": {"disks": [{"name": "d", "disk": {"bus": "virtio"}}]},
    }
    assert assign_threads(instance(domain).spec.domain) == {}


# --- starting --------------------------------------------------------------------------------------------------------


def test_without_an_order_disks_boot_as_listed_and_cards_do_not() -> None:
    disks = [
        {"name": "fd", "floppy": {}},
        {"name": "cd", "cdrom": {"bus": "sata"}},
        {"name": "a", "disk": {"bus": "virtio"}},
        {"name": "b", "disk": {"bus": "sata"}},
    ]
    built = build({"devices": {"disks": disks}})
    assert [device(built, f"ua-{n}")["bootindex"] for n in ("a", "b", "cd")] == [1, 2, 3]
    nic = device(built, "nic-default")
    assert "bootindex" not in nic
    assert nic["romfile"] == ""


def test_an_order_is_all_there_is() -> None:
    domain = disk()
    domain["devices"]["interfaces"] = [{"name": "n", "bridge": {}, "bootOrder": 5}]
    built = build(domain)
    assert "bootindex" not in device(built, "ua-d")
    nic = device(built, "nic-n")
    assert nic["bootindex"] == 5
    assert "romfile" not in nic


def test_a_paused_start_has_a_menu() -> None:
    assert build({}, {"startStrategy": "Paused"}).boot == {
        "strict": True,
        "menu": True,
        "splash-time": 10_000,
    }


@pytest.mark.parametrize("secure", [True, False])
def test_efi(secure: bool) -> None:
    domain = {"firmware": {"bootloader": {"efi": {"secureBoot": secure}}}, "features": {"smm": {}}}
    built = build(domain)
    (copy,) = built.steps
    assert isinstance(copy, CopyFile)
    assert node(built, "efivars-file")["filename"] == copy.path == "/run/qvirt/default/a/efivars.fd"
    assert node(built, "firmware-file")["read-only"] is True
    assert any(setting["property"] == "secure" for setting in built.globals) is secure
    assert device(built, "video0")["driver"] == "bochs-display"
    with pytest.raises(HostError, match="apt install ovmf"):
        build(domain, efi=None, efi_secure=None)


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ({"firmware": {"bootloader": {"efi": {}}}}, "needs SMM"),
        ({"firmware": {"bootloader": {"efi": {}}}, "features": {"smm": {}}, "machine": {"type": "pc"}}, "needs machine type q35"),
        ({"firmware": {"bootloader": {"efi": {}}}, "machine": {"type": "microvm"}}, "no EFI firmware"),
        ({"firmware": {"bootloader": {"efi": {"persistent": True, "secureBoot": False}}}}, "not implemented"),
        ({"firmware": {"kernelBoot": {"kernelArgs": "x"}}}, "needs a kernel"),
        ({"machine": {"type": "isapc"}}, "'isapc' is not supported: use q35"),
        ({"cpu": {"model": "host,+vmx"}}, "is not a name"),
        ({"cpu": {"model": "help"}}, "is not a name"),
        ({"cpu": {"features": [{"name": "a=b"}]}}, "is not a name"),
        ({"cpu": {"sockets": 300}}, "more than QEMU's PC has: 255"),
        ({"clock": {"utc": {"offsetSeconds": 10**12}}}, "leaves the calendar"),
        ({"clock": {"timer": {"hpet": {"tickPolicy": "merge"}}}}, "hpet has delay, not merge"),
        ({"features": {"hyperv": {"vendorid": {"vendorid": "a,b"}}}}, "no comma"),
        ({"features": {"apic": {"enabled": False}}}, "can't do without"),
        ({"devices": {"video": {"type": "vga"}, "autoattachGraphicsDevice": False}}, "there is none"),
        ({"devices": {"watchdog": {"name": "w"}}, "machine": {"type": "microvm"}}, "no PCI"),
    ],
)  # fmt: skip
def test_what_is_refused(domain: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why) as error:
        build(domain)
    assert error.value.causes[0].path.startswith("spec.domain.")


def test_a_kernel_that_was_not_fetched() -> None:
    boot = {"container": {"image": "i", "kernelPath": "/k", "initrdPath": "/i"}}
    domain = {"firmware": {"kernelBoot": boot}}
    assert build(domain).kernel.endswith("/kernel")
    with pytest.raises(HostError, match="the kernel of i was not fetched"):
        build(domain, kernel=None)


# --- clock and processor ---------------------------------------------------------------------------------------------


def test_a_clock_starts_where_the_spec_says() -> None:
    assert build({}).rtc == {"base": "utc"}
    shifted = {"clock": {"utc": {"offsetSeconds": -3600}}}
    assert build(shifted).rtc == {"base": "2026-07-01T11:00:00"}
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    assert build(shifted, now=elsewhere).rtc == {"base": "2026-07-01T11:00:00"}
    summer = {"clock": {"timezone": "America/New_York"}}
    assert build(summer).rtc == {"base": "2026-07-01T08:00:00"}
    with pytest.raises(HostError, match="tzdata"):
        build({"clock": {"timezone": "Mars/Olympus"}})


def test_an_emulated_microvm_counts_its_time() -> None:
    """Else Linux hangs there on a busy host, see `clock`; several vCPUs can't be helped, only warned about."""
    board = {"machine": {"type": "microvm"}}
    assert build(board, accel="tcg").icount == {"shift": "auto"}
    assert build(board).icount is None
    assert build({}, accel="tcg").icount is None
    several = build({**board, "cpu": {"cores": 2}}, accel="tcg")
    assert several.icount is None
    assert "may hang at boot" in several.notes[0]


@pytest.mark.parametrize(
    ("cpu", "accel", "argument"),
    [
        ({}, "kvm", "host"),
        ({}, "tcg", "max"),
        ({"model": "host-passthrough"}, "tcg", "max"),
        ({"model": "Nehalem"}, "kvm", "Nehalem,mpx=off,enforce=on"),
        ({"model": "Nehalem"}, "tcg", "Nehalem,mpx=off"),
        ({"model": "Nehalem", "features": [{"name": "mpx"}]}, "kvm", "Nehalem,mpx=on,enforce=on"),
        ({"features": [{"name": "vmx"}]}, "kvm", "host,vmx=on,enforce=on"),
        ({"features": [{"name": "vmx", "policy": "optional"}]}, "kvm", "host,vmx=on"),
        ({"features": [{"name": "vmx", "policy": "disable"}]}, "kvm", "host,vmx=off"),
    ],
)
def test_cpu_models(cpu: dict[str, Any], accel: str, argument: str) -> None:
    built = build({"cpu": cpu}, accel=accel)
    assert built.cpu == argument


def test_a_forbidden_feature_of_this_host() -> None:
    domain = {"cpu": {"features": [{"name": "sse4.1", "policy": "forbid"}]}}
    assert build(domain).cpu == "host,sse4.1=off"
    with pytest.raises(SpecError, match="this host's CPU has it: use policy disable"):
        build(domain, cpu_flags=frozenset({"sse4_1"}))
    assert build(domain, cpu_flags=frozenset({"sse4_1"}), accel="tcg").cpu == "max,sse4.1=off"


def test_what_enlightenments_need_of_each_other() -> None:
    timers: dict[str, Any] = {"synictimer": {}}
    assert "hv-time=on" in build({"features": {"hyperv": timers}}).cpu
    denied = {"features": {"hyperv": timers}, "clock": {"timer": {"hyperv": {"present": False}}}}
    with pytest.raises(SpecError, match="synictimer needs this timer"):
        build(denied)
    flush: dict[str, Any] = {"tlbflush": {"direct": {}}}
    assert "hv-vapic=on" in build({"features": {"hyperv": flush}}).cpu
    with pytest.raises(SpecError, match="direct needs it"):
        build({"features": {"hyperv": {**flush, "vapic": {"enabled": False}}}})


def test_sockets_for_later() -> None:
    assert build({"cpu": {"cores": 2, "sockets": 1, "maxSockets": 4}}).topology == {
        "cpus": 2,
        "maxcpus": 8,
        "sockets": 4,
        "cores": 2,
        "threads": 1,
    }


def test_an_emulated_guest_has_room_for_a_second_cpu() -> None:
    """See test_translation.py for what that changes."""
    room = {"cpus": 1, "maxcpus": 2, "sockets": 2, "cores": 1, "threads": 1}
    assert build({}, accel="tcg").topology == room
    two = build({"cpu": {"cores": 2}}, accel="tcg").topology
    assert (two["cpus"], two["maxcpus"]) == (2, None)
    assert build({}, accel="kvm").topology["maxcpus"] is None
    assert build({"machine": {"type": "microvm"}}, accel="tcg").topology["maxcpus"] is None


# --- network ---------------------------------------------------------------------------------------------------------


def test_queues() -> None:
    domain = {"cpu": {"cores": 3}, **card()}
    domain["devices"]["networkInterfaceMultiqueue"] = True
    built = build(domain)
    assert built.netdevs == ({"type": "tap", "id": "net-n", "fds": "210:211:212"},)
    assert {"mq": True, "vectors": 8}.items() <= device(built, "nic-n").items()
    domain["devices"]["interfaces"][0]["model"] = "e1000"
    assert build(domain).netdevs == ({"type": "tap", "id": "net-n", "fd": "210"},)


@pytest.mark.parametrize(
    ("fields", "attachment", "why"),
    [
        ({"model": "igb"}, None, "needs QEMU 8.0 or newer, this is 7.2.0"),
        ({"model": "e1000"}, Attachment(interface="n", backend="tap", mac="m", tap_fds=(0, 1)), "has one queue, but 2"),
        ({}, Attachment(interface="other", backend="tap", mac="m", tap_fds=(0,)), "attached to nothing"),
        ({}, Attachment(interface="n", backend="user", mac="m", publish=(PortForward(host_port=1, guest_port=2, host_address="::1"),)), "IPv4 addresses only"),
    ],
)  # fmt: skip
def test_cards_that_can_not_be(
    fields: dict[str, Any], attachment: Attachment | None, why: str
) -> None:
    facts = {"attachments": (attachment,)} if attachment else {}
    with pytest.raises(HostError, match=why):
        build(card(**fields), **facts)


def test_a_link_that_is_down_is_put_down_before_the_guest_runs() -> None:
    (command,) = build(card(state="down")).commands
    assert (command.execute, command.arguments) == ("set_link", {"name": "nic-n", "up": False})


def test_other_backends() -> None:
    passt = Attachment(interface="n", backend="passt", mac="02:00:00:00:00:01", socket="/s")
    (netdev,) = build(card(), attachments=(passt,)).netdevs
    assert netdev["addr"] == {"type": "unix", "path": "/s"}
    user = Attachment(
        interface="n",
        backend="user",
        mac="02:00:00:00:00:01",
        publish=(PortForward(host_port=1, guest_port=2, protocol="udp"),),
    )
    (netdev,) = build(card(), attachments=(user,)).netdevs
    assert netdev["hostfwd"] == [{"str": "udp:127.0.0.1:1-:2"}]


# --- the rest --------------------------------------------------------------------------------------------------------


def test_a_run_directory_that_sockets_do_not_fit_into() -> None:
    build({}, run_dir="/" + "x" * 92)
    with pytest.raises(HostError, match="too long for the sockets"):
        build({}, run_dir="/" + "x" * 93)


def test_what_can_be_left_out() -> None:
    devices = {
        "autoattachSerialConsole": False,
        "autoattachGraphicsDevice": False,
        "autoattachMemBalloon": False,
        "disableHotplug": True,
        "autoattachPodInterface": False,
    }
    built = build({"devices": devices})
    assert built.vnc is None
    assert [d["driver"] for d in built.devices] == [
        "pcie-root-port",
        "virtio-serial-pci-non-transitional",
        "virtserialport",
    ]


def test_no_facts_are_needed_that_offline_does_not_make_up() -> None:
    assert isinstance(offline_facts(instance({}), accel="tcg"), HostFacts)


@pytest.mark.parametrize(
    ("accel", "model", "queues", "given"),
    [
        ("kvm", "virtio", 1, {"fd": "210", "vhost": True, "vhostfd": "211"}),
        ("kvm", "virtio", 2, {"fds": "210:211", "vhost": True, "vhostfds": "212:213"}),
        ("tcg", "virtio", 1, {"fd": "210"}),
        ("kvm", "e1000", 1, {"fd": "210"}),
    ],
)
def test_the_kernel_carries_frames(
    accel: str, model: str, queues: int, given: dict[str, object]
) -> None:
    attachment = Attachment(
        interface="n",
        backend="tap",
        mac="02:00:00:00:00:01",
        tap_fds=tuple(range(queues)),
        vhost_fds=tuple(range(queues, 2 * queues)),
    )
    (netdev,) = build(card(model=model), attachments=(attachment,), accel=accel).netdevs
    assert netdev == {"type": "tap", "id": "net-n", **given}
