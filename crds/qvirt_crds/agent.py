"""What is known of a guest by its agent, and what the launcher's control socket takes for it (beside `qvirt_crds.report`).

Commands: ``agent-info``, ``agent-users``, ``agent-filesystems`` (these ask the guest at that moment), ``agent-ping``, ``agent-exec``,
``agent-freeze``, ``agent-thaw``, ``agent-shutdown``, ``agent-set-password``, ``agent-authorized-keys``. Each needs the control socket, answers within
its deadline, and fails with one of the error classes below. A client's commands are carried out one after the other: who doesn't want to wait behind
a slow guest opens a connection of its own.

Shapes and field names of the three replies are those of KubeVirt's subresources ``guestosinfo``, ``userlist`` and ``filesystemlist``
(KubeVirt's API package, v1.9); fields without a default are always there, as they are there.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from qvirt_crds.model import Empty, Model

#: Error classes of the commands above.
AGENT_NOT_CONNECTED: Final = "AgentNotConnected"
#: The agent is there and does not answer, or not in time. What it was told may still be carried out.
AGENT_TIMEOUT: Final = "AgentTimeout"
#: The agent answered with an error of its own; the description is the agent's.
AGENT_REFUSED: Final = "AgentRefused"
#: The agent doesn't know the command, or its administrator has blocked it.
AGENT_COMMAND_MISSING: Final = "AgentCommandMissing"

#: ``userList`` and ``fsInfo.disks`` of `GuestAgentInfo` hold this many at most; the lists of their own have no limit.
MOST_LISTED: Final = 10

Frozen = Literal["", "frozen", "thawed"]


class GuestOSInfo(Model, frozen=True, kw_only=True):
    """``status.guestOSInfo`` (``guest-get-osinfo``)."""

    name: str = ""
    kernel_release: str = ""
    version: str = ""
    pretty_name: str = ""
    version_id: str = ""
    kernel_version: str = ""
    machine: str = ""
    id: str = ""


class AgentCommand(Model, frozen=True, kw_only=True):
    """One command that the agent knows."""

    name: str
    enabled: bool = False


class GuestUser(Model, frozen=True, kw_only=True):
    """Somebody who is logged in. ``login_time`` is in seconds since the epoch."""

    user_name: str
    domain: str = ""
    login_time: float = 0.0


class FilesystemDisk(Model, frozen=True, kw_only=True):
    """A disk that a file system lies on."""

    serial: str = ""
    bus_type: str


class GuestFilesystem(Model, frozen=True, kw_only=True):
    """A mounted file system."""

    disk_name: str
    mount_point: str
    file_system_type: str
    used_bytes: int
    total_bytes: int
    disk: tuple[FilesystemDisk, ...] = ()


class FilesystemInfo(Model, frozen=True, kw_only=True):
    """``fsInfo``."""

    disks: tuple[GuestFilesystem, ...]


class GuestAgentInfo(Model, frozen=True, kw_only=True):
    """Return of ``agent-info``: the body of the subresource ``guestosinfo``."""

    guest_agent_version: str = ""
    supported_commands: tuple[AgentCommand, ...] = ()
    hostname: str = ""
    os: GuestOSInfo
    timezone: str = ""
    user_list: tuple[GuestUser, ...] = ()
    fs_info: FilesystemInfo
    fs_freeze_status: str


class UserList(Model, frozen=True, kw_only=True):
    """Return of ``agent-users``: the body of the subresource ``userlist``."""

    metadata: Empty
    items: tuple[GuestUser, ...]


class FilesystemList(Model, frozen=True, kw_only=True):
    """Return of ``agent-filesystems``: the body of the subresource ``filesystemlist``."""

    metadata: Empty
    items: tuple[GuestFilesystem, ...]


class PingArguments(Model, frozen=True, kw_only=True):
    """Arguments of ``agent-ping``. A guest that a user has paused counts as well."""

    timeout_seconds: float = 10.0


class ExecArguments(Model, frozen=True, kw_only=True):
    """Arguments of ``agent-exec``: run a program in the guest, without a shell, and wait for its end."""

    command: str
    args: tuple[str, ...] = ()
    timeout_seconds: float = 10.0


class ExecReturn(Model, frozen=True, kw_only=True):
    """Return of ``agent-exec``. Output is cut at 64 KiB each; what is no UTF-8 in it is replaced."""

    #: As a shell has it: 128 plus the signal for a program that a signal ended.
    exit_code: int
    stdout: str = ""
    stderr: str = ""


class FreezeArguments(Model, frozen=True, kw_only=True):
    """Arguments of ``agent-freeze``. A guest that is frozen already stays so, its timeout begins anew.

    ``agent-thaw`` has no arguments; thawing a guest that is not frozen is fine.
    """

    #: The guest is thawed after so long, whatever became of the caller. 0 or less: 300 (KubeVirt's default).
    unfreeze_timeout_seconds: float = 300.0


class ShutdownArguments(Model, frozen=True, kw_only=True):
    """Arguments of ``agent-shutdown``; ``reboot`` is a soft reboot. Returns when the agent has taken the command."""

    mode: Literal["powerdown", "reboot", "halt"] = "reboot"


class PasswordArguments(Model, frozen=True, kw_only=True):
    """Arguments of ``agent-set-password``."""

    user: str
    password: str
    #: Whether it is a hash as crypt(3) makes it.
    crypted: bool = False


class AuthorizedKeysArguments(Model, frozen=True, kw_only=True):
    """Arguments of ``agent-authorized-keys``: ssh keys that are to open the user's account."""

    user: str
    keys: tuple[str, ...]
    #: Whether these become the only ones; agents before QEMU 5.2 know no other way.
    reset: bool = False


class AgentInterface(Model, frozen=True, kw_only=True):
    """A network interface as the guest sees it, loopback left out. Addresses without prefix length, in the guest's order."""

    name: str
    mac: str = ""
    addresses: tuple[str, ...] = ()


class CredentialsSync(Model, frozen=True, kw_only=True):
    """How the last attempt to bring access credentials into the guest went."""

    synchronized: bool
    message: str = ""


class AgentReport(Model, frozen=True, kw_only=True):
    """What the launcher tells unasked, in `report.VmReport`: when any of it changes, and not otherwise."""

    #: Somebody in the guest has the agent's port open. It may still not answer.
    connected: bool = False
    version: str = ""
    #: Why the agent is of little use, in KubeVirt's words; empty: it knows what is needed.
    unsupported: str = ""
    os: GuestOSInfo | None = None
    hostname: str = ""
    #: ``zone, offset in seconds``, as KubeVirt has it.
    timezone: str = ""
    #: None: not told (yet); the interfaces of a guest whose agent has gone are not known any more.
    interfaces: tuple[AgentInterface, ...] | None = None
    freeze_status: Frozen = ""
    #: None: there are none to be brought by the agent.
    credentials: CredentialsSync | None = None


#: Command -> what its arguments are. Commands that take none have `Empty`.
ARGUMENTS: Final[dict[str, type[msgspec.Struct]]] = {
    "agent-info": Empty,
    "agent-users": Empty,
    "agent-filesystems": Empty,
    "agent-ping": PingArguments,
    "agent-exec": ExecArguments,
    "agent-freeze": FreezeArguments,
    "agent-thaw": Empty,
    "agent-shutdown": ShutdownArguments,
    "agent-set-password": PasswordArguments,
    "agent-authorized-keys": AuthorizedKeysArguments,
}
