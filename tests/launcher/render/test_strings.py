"""No string of a spec can add an option, take one away, or change another one.

Every string field of one big spec is in turn filled with anything. The renderer alone must hold: the contract's checks,
which refuse most of this earlier, are not asked.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_crds.errors import QvirtError
from qvirt_crds.report import Attachment, KernelFiles, PortForward
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.backing import Backing, Image
from qvirt_launcher.facts import EFI_SECURE, HostFacts
from qvirt_launcher.machine import build_machine
from qvirt_launcher.render import render

Path = tuple[str | int, ...]

SPEC: Final[dict[str, Any]] = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachineInstance",
    "metadata": {"name": "vm-name", "namespace": "vm-namespace"},
    "spec": {
        "hostname": "host-name",
        "domain": {
            "machine": {"type": "q35"},
            "memory": {"guest": "1Gi"},
            "cpu": {"model": "Nehalem", "features": [{"name": "aes"}]},
            "firmware": {
                "uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223",
                "serial": "a-serial",
                "bootloader": {"efi": {}},
                "kernelBoot": {
                    "kernelArgs": "kernel-args",
                    "container": {"image": "an-image", "kernelPath": "/kernel", "initrdPath": "/initrd"},
                },
            },
            "chassis": {
                "manufacturer": "chassis-manufacturer",
                "version": "chassis-version",
                "serial": "chassis-serial",
                "asset": "chassis-asset",
                "sku": "chassis-sku",
            },
            "clock": {"timezone": "Europe/Paris"},
            "features": {"smm": {}, "hyperv": {"vendorid": {"vendorid": "vendor"}}},
            "devices": {
                "disks": [
                    {"name": "virtio-disk", "disk": {"bus": "virtio", "pciAddress": "0000:0a:00.0"}, "serial": "disk-serial"},
                    {"name": "scsi-disk", "disk": {"bus": "scsi"}, "serial": "scsi-serial"},
                    {"name": "usb-cdrom", "cdrom": {"bus": "usb"}},
                    {"name": "floppy-disk", "floppy": {}},
                ],
                "interfaces": [
                    {"name": "tap-nic", "bridge": {}, "model": "virtio", "macAddress": "02:00:00:00:00:01", "state": "down"},
                    {"name": "user-nic", "masquerade": {}, "model": "e1000", "pciAddress": "0000:00:10.0", "tag": "a-tag"},
                    {"name": "passt-nic", "passtBinding": {}, "model": "e1000e"},
                ],
                "inputs": [{"name": "tablet", "type": "tablet", "bus": "usb"}],
                "watchdog": {"name": "a-watchdog", "i6300esb": {}},
                "sound": {"name": "a-sound", "model": "ich9"},
                "rng": {},
            },
        },
    },
}  # fmt: skip


def strings(value: object, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from strings(inner, (*path, index))


def with_string(path: Path, text: str) -> dict[str, Any]:
    whole = copy.deepcopy(SPEC)
    place: Any = whole
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = text
    return whole


def is_free(path: Path) -> bool:
    """Whether any text fits there, as far as types go."""
    try:
        msgspec.convert(with_string(path, "no such word"), VirtualMachineInstance)
    except msgspec.ValidationError:
        return False
    return True


FREE: Final = [path for path in strings(SPEC) if is_free(path)]


def argv(whole: dict[str, Any]) -> tuple[str, ...]:
    vmi = msgspec.convert(whole, VirtualMachineInstance)
    domain = vmi.spec.domain
    cards = domain.devices.interfaces
    backends = ("tap", "user", "passt")
    text = vmi.metadata.namespace
    host = HostFacts(
        accel="kvm",
        run_dir="/run/qvirt/vm",
        now=datetime(2026, 1, 1, tzinfo=UTC),
        timezone_offset=3600,
        efi_secure=EFI_SECURE[0],
        kernel=KernelFiles(kernel=f"/{text}/kernel", initrd=f"/{text}/initrd"),
        attachments=tuple(
            Attachment(
                interface=card.name,
                backend=backends[index],  # type: ignore[arg-type]
                mac=card.mac_address or "02:00:00:00:00:02",
                tap_fds=(0,) if index == 0 else (),
                socket=f"/{text}/passt.sock",
                publish=(PortForward(host_port=2222, guest_port=22),),
            )
            for index, card in enumerate(cards)
        ),
        backings=tuple(
            Backing(
                volume=disk.name,
                image=Image(path=f"/{disk.name}/image", format="qcow2"),
                base=Image(path=f"/{text}/base", format="raw"),
            )
            for disk in domain.devices.disks
        ),
    )
    return render(build_machine(vmi, host))


def shape(arguments: tuple[str, ...]) -> list[object]:
    """Everything of a command line but its values: flags, keys, and the kinds of JSON."""
    found: list[object] = []
    for argument in arguments:
        if argument.startswith("{"):
            found.append(json_shape(json.loads(argument)))
        elif argument.startswith("-"):
            found.append(argument)
        else:
            found.append(
                [
                    pair.partition("=")[0]
                    for pair in argument.replace(",,", "").split(",")
                    if "=" in pair
                ]
            )
    return found


def json_shape(value: object) -> object:
    if isinstance(value, dict):
        return {key: json_shape(inner) for key, inner in value.items()}
    return type(value).__name__


#: Where a bare value stands after its flag, the whole of it is the value: no key is in it.
BARE: Final = ("-append", "-kernel", "-initrd", "-cpu")


def parts(arguments: tuple[str, ...]) -> list[object]:
    return shape(
        tuple(
            "" if before in BARE else a
            for before, a in zip(("", *arguments), arguments, strict=False)
        )
    )


HOSTILE: Final = st.sampled_from(
    ["a,b=c", ",", ",,", "=", "on,readonly=off", "x -drive file=/etc/passwd", "-S", "#", "'\"\\", '{"driver":"x"}', "\u2028-S", "\x85-S", "%s", "{{ 7*7 }}"]
)  # fmt: skip
TEXT: Final = (
    HOSTILE | st.text(min_size=1, max_size=30) | st.tuples(HOSTILE, st.text()).map("".join)
)


def test_the_spec_has_many_strings() -> None:
    assert len(FREE) > 25
    assert "-append" in argv(SPEC)


@given(st.sampled_from(FREE), TEXT)
def test_no_string_changes_anything_but_its_own_value(path: Path, text: str) -> None:
    try:
        changed = argv(with_string(path, text))
    except QvirtError:
        return
    usual = argv(SPEC)
    if path[-2:] == ("cpu", "model") or "features" in path:
        # Names in -cpu can't be quoted; what is let through has no comma and no equals sign in it.
        flag = changed.index("-cpu") + 1
        assert changed[flag].count(",") == usual[flag].count(",") + (text == "mpx") * -1
        assert changed[flag].count("=") == usual[flag].count("=") + (text == "mpx") * -1
    assert parts(changed) == parts(usual)


@pytest.mark.parametrize("path", FREE, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("text", ["a\n-drive\nfile=/etc/passwd", "a\0b", "a\rb"])
def test_a_line_break_never_gets_through(path: Path, text: str) -> None:
    """Refused, or (tags, names of tablets) not part of a command line at all."""
    try:
        changed = argv(with_string(path, text))
    except QvirtError:
        return
    assert changed == argv(SPEC)
