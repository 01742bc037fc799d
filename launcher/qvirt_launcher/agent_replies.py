"""The agent's replies as structs, and what becomes of them in the contract (pure).

Field names are those of QEMU's guest agent (its reference of the protocol); the mapping is KubeVirt's. A field that is missing or of another
kind makes the whole reply unreadable: it comes from the guest.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec

from qvirt_crds.agent import (
    AgentCommand,
    AgentInterface,
    FilesystemDisk,
    Frozen,
    GuestFilesystem,
    GuestOSInfo,
    GuestUser,
)
from qvirt_launcher.errors import AgentSilent

#: What a guest says of itself is shown to users and stored: neither endless nor full of control characters.
_LONGEST_TEXT: Final = 256
_MOST_INTERFACES: Final = 64
_MOST_ADDRESSES: Final = 32
_LOOPBACK: Final = "lo"
_NO_MAC: Final = "00:00:00:00:00:00"

#: What every agent should know, and what access credentials take (KubeVirt's lists). One of a row is enough.
BASIC: Final = (
    "guest-ping",
    "guest-get-time",
    "guest-info",
    "guest-shutdown",
    "guest-network-get-interfaces",
    "guest-get-fsinfo",
    "guest-get-host-name",
    "guest-get-users",
    "guest-get-timezone",
    "guest-get-osinfo",
)
PUBLIC_KEYS: Final = ("guest-ssh-add-authorized-keys", "guest-exec")
PASSWORDS: Final = ("guest-set-user-password",)


class _Reply(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Newer agents say more than we know."""


class Command(_Reply, frozen=True, kw_only=True):
    """One of ``guest-info``'s list."""

    name: str
    enabled: bool = True


class Info(_Reply, frozen=True, kw_only=True):
    """``guest-info``."""

    version: str = ""
    supported_commands: list[Command] = msgspec.field(
        default_factory=list, name="supported_commands"
    )

    def knows(self, command: str) -> bool:
        """Whether it can be asked for."""
        return any(c.name == command and c.enabled for c in self.supported_commands)


class OS(_Reply, frozen=True, kw_only=True):
    """``guest-get-osinfo``."""

    name: str = ""
    kernel_release: str = ""
    version: str = ""
    pretty_name: str = ""
    version_id: str = ""
    kernel_version: str = ""
    machine: str = ""
    id: str = ""


class HostName(_Reply, frozen=True, kw_only=True):
    """``guest-get-host-name``."""

    host_name: str = ""


class Timezone(_Reply, frozen=True, kw_only=True):
    """``guest-get-timezone``; the offset is in seconds."""

    zone: str = ""
    offset: int = 0


class Address(_Reply, frozen=True, kw_only=True):
    """One address of an interface."""

    ip_address: str


class Interface(_Reply, frozen=True, kw_only=True):
    """One of ``guest-network-get-interfaces``."""

    name: str
    hardware_address: str = ""
    ip_addresses: list[Address] = []


class User(_Reply, frozen=True, kw_only=True):
    """One of ``guest-get-users``."""

    user: str
    domain: str = ""
    login_time: float = 0.0


class Disk(_Reply, frozen=True, kw_only=True):
    """What a file system lies on."""

    bus_type: str = ""
    serial: str = ""


class Filesystem(_Reply, frozen=True, kw_only=True):
    """One of ``guest-get-fsinfo``."""

    name: str
    mountpoint: str = ""
    type: str = ""
    used_bytes: int = 0
    total_bytes: int = 0
    disk: list[Disk] = []


class Started(_Reply, frozen=True, kw_only=True):
    """``guest-exec``."""

    pid: int


class ExecStatus(_Reply, frozen=True, kw_only=True):
    """``guest-exec-status``; data is base64."""

    exited: bool
    exitcode: int | None = None
    signal: int | None = None
    out_data: bytes = msgspec.field(default=b"", name="out-data")
    err_data: bytes = msgspec.field(default=b"", name="err-data")


T = TypeVar("T")


def convert(command: str, value: object, kind: type[T]) -> T:
    """A reply as a struct.

    :raise AgentSilent: it can't be one.
    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise AgentSilent(f"{command}: the guest's agent answered nonsense: {error}") from None


def os_info(reply: OS) -> GuestOSInfo:
    """``status.guestOSInfo``."""
    return GuestOSInfo(
        **{name: text(getattr(reply, name)) for name in GuestOSInfo.__struct_fields__}
    )


def timezone(reply: Timezone) -> str:
    """As KubeVirt writes it."""
    return f"{text(reply.zone)}, {reply.offset}"


def freeze_status(reply: object) -> Frozen:
    """``guest-fsfreeze-status``, empty when it says nothing that we know."""
    match reply:
        case "frozen" | "thawed":
            return reply
        case _:
            return ""


def interfaces(reply: Iterable[Interface]) -> tuple[AgentInterface, ...]:
    """All but loopback, in the guest's order."""
    found = [_interface(interface) for interface in reply if interface.name != _LOOPBACK]
    return tuple(found[:_MOST_INTERFACES])


def _interface(reply: Interface) -> AgentInterface:
    mac = reply.hardware_address.lower()
    addresses = [a.ip_address for a in reply.ip_addresses if _is_address(a.ip_address)]
    return AgentInterface(
        name=text(reply.name),
        mac="" if mac == _NO_MAC else text(mac),
        addresses=tuple(dict.fromkeys(addresses[:_MOST_ADDRESSES])),
    )


def _is_address(said: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, said)
            return True
    return False


def users(reply: Iterable[User]) -> tuple[GuestUser, ...]:
    """Who is logged in."""
    return tuple(
        GuestUser(user_name=user.user, domain=user.domain, login_time=user.login_time)
        for user in reply
    )


def filesystems(reply: Iterable[Filesystem]) -> tuple[GuestFilesystem, ...]:
    """What is mounted."""
    return tuple(
        GuestFilesystem(
            disk_name=one.name,
            mount_point=one.mountpoint,
            file_system_type=one.type,
            used_bytes=one.used_bytes,
            total_bytes=one.total_bytes,
            disk=tuple(FilesystemDisk(serial=d.serial, bus_type=d.bus_type) for d in one.disk),
        )
        for one in reply
    )


def commands(reply: Info) -> tuple[AgentCommand, ...]:
    """What the agent can be asked for."""
    return tuple(AgentCommand(name=c.name, enabled=c.enabled) for c in reply.supported_commands)


def unsupported(info: Info, *, keys: bool, passwords: bool) -> str:
    """Why the agent is of little use, in KubeVirt's words; empty: it knows what is needed.

    :param keys, passwords: whether it is to bring ssh keys or passwords into the guest.
    """
    if not all(info.knows(command) for command in BASIC):
        return "This guest agent doesn't support required basic commands"
    if keys and not any(info.knows(command) for command in PUBLIC_KEYS):
        return "This guest agent doesn't support required public key commands"
    if passwords and not all(info.knows(command) for command in PASSWORDS):
        return "This guest agent doesn't support required password commands"
    return ""


def text(said: str) -> str:
    """What a guest says of itself, fit to be shown."""
    return "".join(c for c in said[:_LONGEST_TEXT] if c.isprintable())
