"""The policy as laws, and its table against the commands, the schema and the devices of the QEMU that is installed."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_qmp import references
from qvirt_qmp.client import Monitor
from qvirt_qmp.policy import Allow, Grade, Refuse, decide, rule_of
from qvirt_qmp.verbs import DEVICES, RULES

GRADES: tuple[Grade, ...] = ("read", "operate", "admin")
StartQemu = Callable[..., tuple[subprocess.Popen[bytes], socket.socket]]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(), JSON, max_size=4)
PATHS = st.one_of(
    st.text().map(lambda text: "/" + text),
    st.text().map(lambda text: f"../{text}"),
    st.tuples(
        st.sampled_from(["nbd", "exec", "file", "unix", "tcp", "json", "fd", "http", "rbd"]),
        st.text(),
    ).map(":".join),
)
#: Refused at every grade, whatever their arguments.
NEVER = [
    "screendump",
    "pmemsave",
    "memsave",
    "dump-guest-memory",
    "drive-mirror",
    "drive-backup",
    "blockdev-add",
    "blockdev-reopen",
    "blockdev-create",
    "blockdev-change-medium",
    "blockdev-snapshot-sync",
    "chardev-add",
    "chardev-change",
    "migrate",
    "migrate-incoming",
    "migrate-recover",
    "netdev_add",
    "getfd",
    "add-fd",
    "add_client",
    "human-monitor-command",
    "quit",
    "qom-set",
    "trace-event-set-state",
    "nbd-server-start",
    "nbd-server-add",
    "block-export-add",
    "snapshot-save",
    "snapshot-load",
    "transaction",
    "change-backing-file",
    "dumpdtb",
    "display-update",
    "set-action",
]
#: What changes the machine, or ends it.
CHANGING = [
    name
    for name, rule in RULES.items()
    if rule.grade != "read" and not name.startswith(("query-", "x-query-"))
]


@pytest.mark.parametrize(
    ("command", "arguments", "least"),
    [
        ("qmp_capabilities", {}, "read"),
        ("query-status", None, "read"),
        ("query-block", {}, "read"),
        ("query-something-new", {}, "read"),
        ("query-stats", {"target": "vcpu", "vcpus": ["/machine/unattached/device[0]"]}, "read"),
        ("qom-list", {"path": "/machine"}, "read"),
        ("qom-get", {"path": "/machine/peripheral/d", "property": "bootindex"}, "read"),
        ("query-rx-filter", {}, "operate"),
        ("stop", {}, "operate"),
        ("cont", {}, "operate"),
        ("system_powerdown", {}, "operate"),
        ("system_reset", {}, "operate"),
        ("send-key", {"keys": [{"type": "qcode", "data": "slash"}]}, "operate"),
        ("balloon", {"value": 1 << 30}, "operate"),
        ("set_link", {"name": "net0", "up": False}, "operate"),
        ("device_add", {"driver": "virtio-rng-pci", "id": "rng1", "rng": "r"}, "admin"),
        ("device_add", {"driver": "virtio-net-pci", "mac": "aa:bb:cc:dd:ee:ff"}, "admin"),
        ("device_add", {"driver": "qemu64-x86_64-cpu", "socket-id": 1}, "admin"),
        ("device_del", {"id": "rng1"}, "admin"),
        ("object-add", {"qom-type": "iothread", "id": "io1"}, "admin"),
        ("block_resize", {"node-name": "disk0", "size": 1 << 30}, "admin"),
        ("block-commit", {"device": "disk0", "top-node": "a", "base-node": "b"}, "admin"),
        ("set_password", {"protocol": "vnc", "password": "/nbd:../"}, "admin"),
        ("something_new", {"size": 3}, "admin"),
    ],
)
def test_the_least_grade(command: str, arguments: dict[str, object] | None, least: Grade) -> None:
    for grade in GRADES:
        allowed = isinstance(decide(command, arguments, grade), Allow)
        assert allowed == (GRADES.index(grade) >= GRADES.index(least)), grade


@pytest.mark.parametrize(
    ("command", "arguments", "why"),
    [
        ("quit", {}, "use vm-stop"),
        ("device_add", {"driver": "vfio-pci", "host": "00:02.0"}, "may use things of the host"),
        ("device_add", {"driver": "usb-host"}, "may use things of the host"),
        ("device_add", {"driver": "loader", "file": "x"}, "may use things of the host"),
        ("device_add", {"driver": ["virtio-rng-pci"]}, "may use things of the host"),
        ("device_add", {}, "may use things of the host"),
        ("device_add", {"driver": "virtio-net-pci", "romfile": "x"}, "arguments.romfile"),
        ("device_add", {"driver": "virtio-net-pci", "ROMFile": "x"}, "arguments.ROMFile"),
        ("device_add", {"driver": "usb-kbd", "pcap": "x"}, "arguments.pcap"),
        ("device_add", {"driver": "scsi-hd", "serial": "a/b"}, "looks like a path"),
        ("object-add", {"qom-type": "secret", "id": "s", "data": "x"}, "hold secrets"),
        ("object-add", {"qom-type": "memory-backend-file", "mem-path": "x"}, "of the host"),
        ("object-add", {"qom-type": "rng-random", "filename": "x"}, "of the host"),
        ("block-commit", {"device": "d", "base": "x"}, "use base-node"),
        ("block-stream", {"device": "d", "backing-file": "x"}, "arguments.backing-file"),
        ("qom-get", {"path": "/objects/s", "property": "data"}, "below /machine"),
        ("qom-get", {"path": "s", "property": "id"}, "below /machine"),
        ("qom-get", {"path": "/machinery/s", "property": "id"}, "below /machine"),
        ("qom-get", {"path": "/machine/s", "property": "rawdata"}, "may be a secret"),
        ("qom-get", {"path": "/machine/s", "property": "Password"}, "may be a secret"),
        ("qom-get", {}, "must be strings"),
        ("block_resize", {"device": "/dev/sda", "size": 1}, "arguments.device looks like a path"),
        ("device_del", {"id": "/machine/peripheral/d"}, "arguments.id looks like a path"),
        ("blockdev-mirror", {"device": "d", "target": "nbd://host/x"}, "looks like a path or URI"),
        ("set_link", {"name": "x", "fd": 3}, "arguments.fd names something outside"),
        ("something_new", {"a": [{"b": "/dev/sda"}]}, "arguments.a[0].b looks like a path"),
        ("something_new", {"fdset": 3}, "arguments.fdset"),
        ("query-something-new", {"x": "/etc/shadow"}, "looks like a path"),
    ],
)
def test_refused_at_every_grade(command: str, arguments: dict[str, object], why: str) -> None:
    decision = decide(command, arguments, "admin")
    assert isinstance(decision, Refuse)
    assert why in decision.reason
    for grade in GRADES:
        assert isinstance(decide(command, arguments, grade), Refuse)


@given(st.sampled_from(NEVER), ARGUMENTS | st.none(), st.sampled_from(GRADES))
def test_no_arguments_open_a_closed_command(
    command: str, arguments: dict[str, object] | None, grade: Grade
) -> None:
    assert isinstance(decide(command, arguments, grade), Refuse)


@given(st.sampled_from(CHANGING), ARGUMENTS | st.none())
def test_reading_never_changes(command: str, arguments: dict[str, object] | None) -> None:
    assert isinstance(decide(command, arguments, "read"), Refuse)


@given(st.text(), ARGUMENTS)
def test_an_unknown_verb_needs_admin(command: str, arguments: dict[str, object]) -> None:
    if command not in RULES and not command.startswith("query-"):
        assert isinstance(decide(command, arguments, "operate"), Refuse)


@given(
    st.sampled_from([name for name, rule in RULES.items() if rule.objection is not None])
    | st.text().filter(lambda name: name not in RULES),
    ARGUMENTS,
    st.sampled_from(["x", "id", "device", "driver", "node-name", "value"]),
    PATHS,
    st.sampled_from(GRADES),
)
def test_a_path_passes_nowhere_where_arguments_are_judged(
    command: str, arguments: dict[str, object], key: str, path: str, grade: Grade
) -> None:
    if command == "qom-get":  # its paths are of QEMU's own tree
        return
    for sneaky in (
        {**arguments, key: path},
        {**arguments, key: [{"x": path}]},
        {**arguments, path: 1},
    ):
        assert isinstance(decide(command, sneaky, grade), Refuse)


@given(st.text() | st.sampled_from(sorted(RULES)), ARGUMENTS)
def test_a_higher_grade_never_loses_a_right(command: str, arguments: dict[str, object]) -> None:
    allowed = [isinstance(decide(command, arguments, grade), Allow) for grade in GRADES]
    assert allowed == sorted(allowed)


@pytest.mark.parametrize("mac", ["52:54:00:12:34:56", "aa:bb:cc:dd:ee:ff"])
def test_a_mac_address_is_no_uri(mac: str) -> None:
    assert not references.looks_outside(mac)


# Against the QEMU that is installed


@pytest.mark.qemu
async def test_every_command_of_qemu_is_in_the_table_or_a_query(start_qemu: StartQemu) -> None:
    monitor = await Monitor.connect(start_qemu()[1], name="qemu")
    commands = await monitor.execute("query-commands")
    names = {each["name"] for each in cast("list[dict[str, str]]", commands)}
    await monitor.aclose()
    unclassified = sorted(
        name for name in names if name not in RULES and not name.startswith("query-")
    )
    assert not unclassified, f"say in verbs.py who may use: {' '.join(unclassified)}"
    assert len(names) > 150


#: Text that may be given to commands which change something, each member looked up: the name of something inside QEMU.
REVIEWED_MEMBERS = {
    "base-node",
    "bitmap",
    "bitmaps",
    "bottom",
    "device",
    "display",
    "filter-node-name",
    "group",
    "id",
    "interfaces",
    "iothread",
    "job-id",
    "name",
    "node",
    "node-name",
    "overlay",
    "password",
    "replaces",
    "target",
    "time",
    "top-node",
    "typename",
    "mnonce",
}


class Schema:
    """Walks the arguments of commands in ``query-qmp-schema``."""

    def __init__(self, entries: list[dict[str, object]]) -> None:
        self.entries = {str(entry["name"]): entry for entry in entries}

    def commands(self) -> Iterator[str]:
        return (name for name, each in self.entries.items() if each["meta-type"] == "command")

    def members(self, type_name: str, seen: frozenset[str] = frozenset()) -> Iterator[list[str]]:
        """Each member below a type, as the way to it."""
        entry = self.entries.get(type_name)
        if entry is None or type_name in seen:
            return
        seen |= {type_name}
        if entry["meta-type"] == "array":
            for way in self.members(str(entry["element-type"]), seen):
                yield ["[]", *way]
        parts = cast("list[dict[str, str]]", entry.get("members", []))
        for part in parts if entry["meta-type"] in ("object", "alternate") else []:
            own = [part["name"]] if "name" in part else []
            if own:
                yield own
            for way in self.members(part["type"], seen):
                yield [*own, *way]
        for variant in cast("list[dict[str, str]]", entry.get("variants", [])):
            yield from self.members(variant["type"], seen)

    def ways(self, command: str) -> Iterator[list[str]]:
        return self.members(str(self.entries[command]["arg-type"]))

    def takes_text(self, command: str, way: list[str]) -> bool:
        """Whether a member may be any text (rather than one of a few words, a number, or an object)."""
        here = str(self.entries[command]["arg-type"])
        kinds = {here}
        for key in way:
            kinds = {kind for each in kinds for kind in self._below(each, key)}
        return any(self._text(kind) for kind in kinds)

    def _below(self, type_name: str, key: str) -> Iterator[str]:
        entry = self.entries[type_name]
        if entry["meta-type"] == "array" and key == "[]":
            yield str(entry["element-type"])
            return
        for part in cast("list[dict[str, str]]", entry.get("members", [])):
            if part.get("name") == key:
                yield part["type"]
            elif "name" not in part:
                yield from self._below(part["type"], key)
        for variant in cast("list[dict[str, str]]", entry.get("variants", [])):
            yield from self._below(variant["type"], key)

    def _text(self, type_name: str) -> bool:
        entry = self.entries[type_name]
        match entry["meta-type"]:
            case "builtin":
                return entry["json-type"] == "string"
            case "alternate":
                return any(
                    self._text(part["type"])
                    for part in cast("list[dict[str, str]]", entry["members"])
                )
            case "array":
                return self._text(str(entry["element-type"]))
        return False


def build(way: list[str], value: object) -> object:
    for key in reversed(way):
        value = [value] if key == "[]" else {key: value}
    return value


#: Members of commands that we let through whose name says "outside" but that don't mean it, each looked up in QEMU's documentation.
HARMLESS = {
    ("qom-list", "path"),
    ("qom-get", "path"),
    ("x-query-virtio-status", "path"),
    ("x-query-virtio-queue-status", "path"),
    ("x-query-virtio-queue-element", "path"),
    ("x-query-virtio-vhost-queue-status", "path"),
}


@pytest.mark.qemu
async def test_no_member_of_the_schema_that_points_outside_passes(start_qemu: StartQemu) -> None:
    monitor = await Monitor.connect(start_qemu()[1], name="qemu")
    entries = await monitor.execute("query-qmp-schema")
    await monitor.aclose()
    schema = Schema(cast("list[dict[str, object]]", entries))
    passed: list[str] = []
    checked = 0
    for command in schema.commands():
        for way in schema.ways(command):
            if not references.names_outside(way[-1]) or (command, way[-1]) in HARMLESS:
                continue
            checked += 1
            arguments = cast("dict[str, object]", build(way, "name"))
            if isinstance(decide(command, arguments, "admin"), Allow):
                passed.append(f"{command}.{'.'.join(way)}")
    assert not passed
    assert checked > 300


@pytest.mark.qemu
async def test_text_that_may_be_given_to_verbs_is_known(start_qemu: StartQemu) -> None:
    monitor = await Monitor.connect(start_qemu()[1], name="qemu")
    entries = await monitor.execute("query-qmp-schema")
    await monitor.aclose()
    schema = Schema(cast("list[dict[str, object]]", entries))
    passed = {
        f"{command}.{'.'.join(way)}"
        for command in schema.commands()
        if rule_of(command).grade != "read"
        for way in schema.ways(command)
        if schema.takes_text(command, way)
        and isinstance(
            decide(command, cast("dict[str, object]", build(way, "name")), "admin"), Allow
        )
    }
    assert "block_resize.node-name" in passed
    unknown = {each for each in passed if each.split(".")[-1] not in REVIEWED_MEMBERS}
    assert not unknown - {
        # A path of QEMU's own tree; the name of a CPU model.
        "x-query-virtio-queue-element.path",
        "query-cpu-model-expansion.model.name",
    }


#: Text properties of the devices that may be added, each looked up: they name something inside QEMU, or are the guest's to read.
REVIEWED = {
    "device_id",
    "display",
    "drive",
    "duplex",
    "failover_pair_id",
    "hv-vendor-id",
    "mac",
    "model",
    "model-id",
    "netdev",
    "port",
    "product",
    "serial",
    "tx",
    "unavailable-features",
    "vendor",
    "ver",
}


@pytest.mark.qemu
async def test_text_properties_of_devices_that_may_be_added_are_known(
    start_qemu: StartQemu,
) -> None:
    monitor = await Monitor.connect(start_qemu("-machine", "q35")[1], name="qemu")
    types = await monitor.execute("qom-list-types", {"implements": "device", "abstract": False})
    drivers = {
        each["name"]
        for each in cast("list[dict[str, str]]", types)
        if DEVICES.fullmatch(each["name"])
    }
    assert len(drivers) > 100
    found_any = False
    unknown = set()
    for driver in sorted(drivers):
        found = await monitor.execute("device-list-properties", {"typename": driver})
        for each in cast("list[dict[str, str]]", found):
            name = each["name"]
            found_any |= name == "drive"
            if (
                each["type"] in ("str", "string", "strList", "chardev")
                and name not in REVIEWED
                and not references.names_outside(name)
            ):
                unknown.add(f"{driver}.{name} ({each['type']})")
    await monitor.aclose()
    assert not unknown
    assert found_any


def test_no_rule_is_for_a_command_of_another_kind() -> None:
    assert {rule_of(name).grade for name in NEVER} == {"never"}
