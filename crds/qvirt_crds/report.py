"""What handler (or `qvirt run`) and launcher say to each other over the launcher's control socket.

The dialect is QMP's (`qvirt_qmp.server`): ``{"execute": "vm-sync", "arguments": {...}}``. Descriptors travel beside
the message (SCM_RIGHTS); the structs name them by their position in that message. What concerns the guest's agent is in
`qvirt_crds.agent`; `qvirt_crds.sync` has the message that brings a guest up.
"""

from __future__ import annotations

from typing import Literal

from qvirt_crds.agent import AgentReport
from qvirt_crds.model import Model

#: ``auto`` means: try KVM, fall back to TCG with one line that says so.
AccelChoice = Literal["auto", "kvm", "tcg"]
Accel = Literal["kvm", "tcg"]

#: The launcher's view of its guest; `qvirt_launcher.lifecycle` has the table of transitions.
Phase = Literal[
    "Waiting", "Preparing", "Starting", "Running", "Paused", "Stopping", "Succeeded", "Failed"
]

#: Why a guest ended (or could not start).
EndReason = Literal[
    "GuestShutdown",  # the guest powered itself off
    "GuestReset",  # the guest rebooted under rebootPolicy Terminate
    "GuestPanicked",
    "Stopped",  # `quit` or a signal, with no grace period in force
    "KilledAfterGrace",  # the guest ignored the power button until the grace period was over
    "QemuFailed",  # QEMU ended by itself; the message has the tail of its stderr
    "PrepareFailed",  # disks, seed or command line could not be made; QEMU never ran
]


class PortForward(Model, frozen=True, kw_only=True):
    """A port of this machine that reaches one of the guest (user-mode networking and passt only)."""

    host_port: int
    guest_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host_address: str = "127.0.0.1"


class Route(Model, frozen=True, kw_only=True):
    """A static route; ``gateway`` empty means on-link. Both families."""

    destination: str
    gateway: str = ""


class Lease(Model, frozen=True, kw_only=True):
    """What our DHCP, DHCPv6 and RA responder tells the guest on one interface. Addresses carry their prefix length."""

    mac: str
    hostname: str
    mtu: int = 1500
    #: e.g. ``10.0.2.2/24``; empty: no DHCPv4 on this interface.
    address: str = ""
    gateway: str = ""
    #: Our own address in answers (the server identifier); may be link-local.
    server: str = ""
    #: e.g. ``fd10:0:2::2/120``; empty: no DHCPv6 and no router advertisements.
    address6: str = ""
    #: A link-local address, as RA demands; empty: no default route is advertised.
    gateway6: str = ""
    routes: tuple[Route, ...] = ()
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ntp: tuple[str, ...] = ()
    boot_file: str = ""
    tftp_server: str = ""
    #: DHCPv4 options 224-254.
    private_options: dict[str, str] = {}


class Attachment(Model, frozen=True, kw_only=True):
    """One interface of the guest, ready to be plugged in."""

    #: ``spec.domain.devices.interfaces[].name``
    interface: str
    backend: Literal["tap", "user", "passt"]
    mac: str
    mtu: int = 1500
    #: Positions of the tap's descriptors in the message, one a queue.
    tap_fds: tuple[int, ...] = ()
    #: Those of vhost-net, one a queue, by which the kernel carries frames without waking QEMU; none where it has no vhost-net.
    vhost_fds: tuple[int, ...] = ()
    #: Position of the packet socket for DHCP; None: nobody answers DHCP here (or the backend does it itself).
    dhcp_fd: int | None = None
    lease: Lease | None = None
    #: passt's stream socket.
    socket: str = ""
    publish: tuple[PortForward, ...] = ()


class LocalVolume(Model, frozen=True, kw_only=True):
    """Where the bytes of one volume lie on this machine.

    For containerDisk, claims and ephemeral: a file or block device. For cloud-init from Secrets: a directory with the
    Secrets' keys as files. emptyDisk and inline cloud-init need none.
    """

    volume: str
    path: str
    #: Of files and devices. Set by whoever resolved the volume, never guessed from a content that a guest can write.
    format: Literal["raw", "qcow2"] = "raw"
    read_only: bool = False


class KernelFiles(Model, frozen=True, kw_only=True):
    """``firmware.kernelBoot.container``, resolved to files of this machine; empty where the spec names none."""

    kernel: str = ""
    initrd: str = ""


class StopArguments(Model, frozen=True, kw_only=True):
    """Arguments of ``vm-stop``. ``grace_period_seconds`` None: the spec's own (30 when that is unset); 0: at once."""

    grace_period_seconds: int | None = None


class ScreenshotArguments(Model, frozen=True, kw_only=True):
    """Arguments of ``vm-screenshot``. ``wake``: move the pointer a bit first, so that a screen saver lets go."""

    wake: bool = False


class ScreenshotReturn(Model, frozen=True, kw_only=True):
    """Return of ``vm-screenshot``: a PNG in base64."""

    png: str


class GuestInterface(Model, frozen=True, kw_only=True):
    """What is known of one of the guest's interfaces."""

    name: str
    mac: str
    address: str = ""
    address6: str = ""
    #: Whether the guest has taken its DHCP lease.
    leased: bool = False
    publish: tuple[PortForward, ...] = ()


class VmReport(Model, frozen=True, kw_only=True):
    """Return of ``vm-query``, and the data of every ``VM_STATUS`` event: always the full state, never a delta."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    phase: Phase = "Waiting"
    end_reason: EndReason | None = None
    message: str = ""
    #: Seconds since the epoch, of the launcher's start and of the guest's first running.
    started: float = 0.0
    running_since: float | None = None
    accel: Accel | None = None
    #: Why not KVM, in one sentence; empty when KVM is used or was not asked for.
    accel_message: str = ""
    qemu_version: str = ""
    qemu_pid: int | None = None
    launcher_pid: int = 0
    argv: tuple[str, ...] = ()
    argv_sha256: str = ""
    interfaces: tuple[GuestInterface, ...] = ()
    #: None: no agent has been there, and none is waited for with access credentials.
    agent: AgentReport | None = None
