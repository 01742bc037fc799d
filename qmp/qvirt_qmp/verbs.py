"""The policy's table: every command of QEMU that is not an ordinary ``query-*``, with the grade it needs and the reason. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

import msgspec

from qvirt_qmp.references import outside_reference

Grade = Literal["read", "operate", "admin"]

#: Says why these arguments won't do; None: they will.
Objection = Callable[[Mapping[str, object]], str | None]


class Rule(msgspec.Struct, frozen=True):
    """One line."""

    #: The least grade; ``never``: the launcher alone may do this.
    grade: Grade | Literal["never"]
    reason: str
    objection: Objection | None = None


#: Devices that take nothing from the host but what is already open in this QEMU (a drive, a netdev, memory, an iothread).
DEVICES: Final = re.compile(
    r"""
    virtio-(blk|scsi|net|balloon|rng|mem|keyboard|mouse|tablet|serial)-pci(-non-transitional|-transitional)? |
    usb-(kbd|mouse|tablet|hub|storage|net) | scsi-(hd|cd) | ide-(hd|cd) | e1000e? | rtl8139 | vmxnet3 |
    pc-dimm | pcie-root-port | qemu-xhci | [A-Za-z0-9_-]+-(x86_64|i386|arm|aarch64)-cpu
    """,
    re.VERBOSE,
)
#: Objects that are nothing but memory, threads and accounts.
_OBJECTS: Final = frozenset(
    {"iothread", "throttle-group", "memory-backend-ram", "rng-builtin", "thread-context"}
)
#: Properties that hold secrets (``secret`` objects give theirs in clear).
_SECRETS: Final = re.compile(r"(raw)?data|.*(pass|secret|key|token).*")


def _no_device_of_the_host(arguments: Mapping[str, object]) -> str | None:
    driver = arguments.get("driver")
    if not isinstance(driver, str) or DEVICES.fullmatch(driver) is None:
        return f"device {driver!r} may use things of the host"
    return outside_reference(arguments)


def _no_object_of_the_host(arguments: Mapping[str, object]) -> str | None:
    kind = arguments.get("qom-type")
    if not isinstance(kind, str) or kind not in _OBJECTS:
        return f"objects of type {kind!r} may use things of the host, or hold secrets"
    return outside_reference(arguments)


def _no_image_by_name(arguments: Mapping[str, object]) -> str | None:
    for member in ("top", "base"):
        if member in arguments:
            return f"arguments.{member} names a file: use {member}-node"
    return outside_reference(arguments)


def _no_secret_property(arguments: Mapping[str, object]) -> str | None:
    path, wanted = arguments.get("path"), arguments.get("property")
    if not isinstance(path, str) or not isinstance(wanted, str):
        return "path and property must be strings"
    # A path without a leading slash is looked up by its last parts, anywhere.
    if path != "/machine" and not path.startswith("/machine/"):
        return "only objects below /machine can be read: those of /objects may be secrets"
    if _SECRETS.fullmatch(wanted.lower()):
        return f"property {wanted!r} may be a secret"
    return None


_REFUSED: Final[tuple[tuple[str, str], ...]] = (
    ("it ends the VM behind the launcher's back: use vm-stop", "quit"),
    ("any command can hide in its text: use QMP's own", "human-monitor-command"),
    ("it writes the screen to a file of the host", "screendump"),
    ("it writes the guest's memory to a file of the host", "memsave pmemsave dump-guest-memory"),
    ("it writes a file of the host", "dumpdtb xen-save-devices-state"),
    ("it reads a file of the host", "xen-load-devices-state"),
    (
        "it opens a file or URI, or what an image's own header names: disks are the launcher's",
        "blockdev-add blockdev-reopen blockdev-change-medium x-blockdev-change",
    ),
    ("it takes away a disk that the launcher opened", "blockdev-del"),
    (
        "it creates or names an image file",
        "blockdev-create blockdev-snapshot-sync drive-mirror drive-backup change-backing-file",
    ),
    ("it can carry any of the disk commands that are refused by themselves", "transaction"),
    ("it changes how an image is encrypted", "x-blockdev-amend"),
    ("it writes the guest's memory into its images", "snapshot-save snapshot-load snapshot-delete"),
    (
        "it serves disks to others, on sockets or as files",
        "nbd-server-start nbd-server-add nbd-server-remove nbd-server-stop block-export-add "
        "block-export-del",
    ),
    ("character devices are the launcher's", "chardev-add chardev-change chardev-remove"),
    ("it names a character device", "chardev-send-break ringbuf-read ringbuf-write"),
    ("descriptors are the launcher's to hand over", "getfd closefd add-fd remove-fd add_client"),
    ("it opens sockets for the display", "display-update"),
    ("it makes QEMU read its key files anew", "display-reload"),
    ("the guest's network is the launcher's", "netdev_add netdev_del"),
    (
        "migration connects to a URI and ends the VM here: it is the launcher's",
        "migrate migrate-incoming migrate-recover migrate-continue migrate-pause migrate_cancel "
        "migrate-set-capabilities migrate-set-parameters migrate-start-postcopy client_migrate_info",
    ),
    (
        "replication is not set up here",
        "x-colo-lost-heartbeat xen-colo-do-checkpoint xen-set-replication xen-set-global-dirty-log",
    ),
    ("it sets any property of any object", "qom-set"),
    (
        "the launcher counts on what QEMU does when the guest ends",
        "set-action watchdog-set-action",
    ),
    ("it cuts QEMU's connections, this monitor's among them", "yank"),
    ("it hands secrets to the guest's firmware", "sev-inject-launch-secret"),
    ("it writes traces to a file of the host", "trace-event-set-state"),
    ("the machine is built by the launcher, before it starts", "set-numa-node x-exit-preconfig"),
)

# Looking may need a path of QEMU's own tree of objects, so these take any.
_QUERIES: Final[tuple[tuple[Grade, str, str], ...]] = (
    ("operate", "it makes and configures a CPU to answer", "query-cpu-model-expansion"),
    ("operate", "it re-arms an event that others wait for", "query-rx-filter"),
    ("operate", "it starts its count anew", "x-query-profile"),
    (
        "admin",
        "it asks the firmware for material to attest with",
        "query-sev-attestation-report query-sev-launch-measure",
    ),
    ("admin", "it reads the guest's memory", "x-query-virtio-queue-element"),
    ("admin", "it reads a whole bitmap", "x-debug-block-dirty-bitmap-sha256"),
    (
        "read",
        "it looks, no more",
        "x-query-irq x-query-jit x-query-numa x-query-opcount x-query-ramblock x-query-rdma x-query-roms "
        "x-query-usb x-query-virtio x-query-virtio-queue-status x-query-virtio-status "
        "x-query-virtio-vhost-queue-status x-debug-query-block-graph",
    ),
    ("read", "it says whether tracing is on", "trace-event-get-state"),
    ("read", "it names objects and types", "qom-list qom-list-types"),
    ("read", "it counts; its argument may be a path of QEMU's own tree", "query-stats"),
    (
        "admin",
        "it makes an object of the type inside the running QEMU",
        "device-list-properties qom-list-properties",
    ),
)

_VERBS: Final[tuple[tuple[Grade, str, str], ...]] = (
    ("read", "every session begins with it", "qmp_capabilities"),
    ("operate", "pause and go on", "stop cont"),
    ("operate", "the machine's buttons", "system_powerdown system_reset system_wakeup inject-nmi"),
    ("operate", "keyboard and mouse", "send-key input-send-event"),
    ("operate", "how much of its memory the guest has", "balloon"),
    ("operate", "plug and unplug a network cable", "set_link announce-self"),
    ("operate", "forget the clock ticks that the guest missed", "rtc-reset-reinjection"),
    ("operate", "the drive's door", "blockdev-open-tray blockdev-close-tray"),
    ("admin", "change media, among disks that are open", "blockdev-insert-medium"),
    ("admin", "take media out", "eject blockdev-remove-medium"),
    ("admin", "a device leaves the guest", "device_del"),
    ("admin", "an object leaves QEMU", "object-del"),
    ("admin", "a disk's size", "block_resize"),
    ("admin", "a disk's limits", "block_set_io_throttle block-set-write-threshold"),
    ("admin", "a disk's statistics", "block-latency-histogram-set"),
    ("admin", "which thread serves a disk", "x-blockdev-set-iothread"),
    (
        "admin",
        "which blocks have changed",
        "block-dirty-bitmap-add block-dirty-bitmap-clear block-dirty-bitmap-disable "
        "block-dirty-bitmap-enable block-dirty-bitmap-merge block-dirty-bitmap-remove",
    ),
    ("admin", "copy one open disk onto another", "blockdev-backup blockdev-mirror"),
    ("admin", "put one open disk over another", "blockdev-snapshot"),
    (
        "admin",
        "snapshots inside an image",
        "blockdev-snapshot-internal-sync blockdev-snapshot-delete-internal-sync",
    ),
    (
        "admin",
        "jobs on disks",
        "block-job-cancel block-job-complete block-job-dismiss block-job-finalize block-job-pause "
        "block-job-resume block-job-set-speed job-cancel job-complete job-dismiss job-finalize job-pause "
        "job-resume",
    ),
    (
        "admin",
        "measure and limit how fast the guest writes memory",
        "calc-dirty-rate set-vcpu-dirty-limit cancel-vcpu-dirty-limit",
    ),
    ("admin", "debug a replay", "replay-break replay-delete-break replay-seek"),
)

#: A password may look like anything.
_PASSWORD: Final = Rule("admin", "it changes the password of the display")

_OTHERS: Final[dict[str, Rule]] = {
    "set_password": _PASSWORD,
    "change-vnc-password": _PASSWORD,
    "expire_password": _PASSWORD,
    "device_add": Rule("admin", "a device joins the guest", _no_device_of_the_host),
    "object-add": Rule("admin", "an object joins QEMU", _no_object_of_the_host),
    "block-commit": Rule("admin", "merge a disk's layers", _no_image_by_name),
    "block-stream": Rule("admin", "merge a disk's layers", _no_image_by_name),
    "qom-get": Rule("read", "it reads one property of a device", _no_secret_property),
}


def _table() -> Iterator[tuple[str, Rule]]:
    for reason, names in _REFUSED:
        for name in names.split():
            yield name, Rule("never", reason)
    for grade, reason, names in _QUERIES:
        for name in names.split():
            yield name, Rule(grade, reason)
    for grade, reason, names in _VERBS:
        for name in names.split():
            # Changing needs no path, so none is let through.
            yield name, Rule(grade, reason, outside_reference)
    yield from _OTHERS.items()


RULES: Final[Mapping[str, Rule]] = dict(_table())
