"""What the supervisor (or virt-handler) asks of us, and what it gets back.

A request says which guest, and per interface where its frames shall go. The reply lists `Attachment`s whose numbers are
positions in the list of descriptors that travels beside it (SCM_RIGHTS).
"""

from __future__ import annotations

from typing import Literal

from qvirt_crds.devices import DhcpOptions, Port
from qvirt_crds.errors import Retry
from qvirt_crds.model import Model
from qvirt_crds.report import Attachment

#: ``nat``: a bridge of our own on a bare host, with masquerading towards the rest of the world.
#: ``takeover``: the guest takes over MAC and addresses of an interface of the namespace (KubeVirt's bridge binding).
#: ``masquerade``: a private network inside the namespace; the guest answers at the namespace's addresses by NAT.
Mode = Literal["nat", "takeover", "masquerade"]

#: ``up``: make it (again, if it is there already). ``down``: remove what this VM got.
#: ``clean``: remove what VMs left whose owner has died; `up` does that too.
Verb = Literal["up", "down", "clean"]

#: SCM_RIGHTS carries at most 253 descriptors (Linux, SCM_MAX_FD); one more per interface is its packet socket.
MAX_DESCRIPTORS = 253


class InterfaceRequest(Model, frozen=True, kw_only=True):
    """One interface of the guest."""

    #: ``spec.domain.devices.interfaces[].name``
    name: str
    mode: Mode
    #: Empty: takeover and masquerade use the namespace interface's own; nat derives one from the VM's name.
    mac: str = ""
    #: Queues of the tap; more than one only for a virtio model.
    queues: int = 1
    #: Open vhost-net as well, if the kernel has it; only of use to a virtio model.
    vhost: bool = False
    #: takeover, masquerade: the interface of the namespace; empty: that of its default route.
    link: str = ""
    #: masquerade: the ports that reach the guest; none: all.
    ports: tuple[Port, ...] = ()
    #: masquerade: the private networks; empty: 10.0.2.0/24 and fd10:0:2::/120.
    network: str = ""
    network6: str = ""
    dhcp: DhcpOptions = DhcpOptions()


class NetworkRequest(Model, frozen=True, kw_only=True):
    """Everything about the network of one VM. ``clean`` needs only ``netns`` and ``state_dir``."""

    verb: Verb
    #: Directory for the lock and the state files; made if missing. It must outlive the VM and not the machine's boot.
    state_dir: str
    namespace: str = "default"
    name: str = ""
    uid: str = ""
    #: The process whose death makes this set-up a leftover; 0: the parent of the child that we run in.
    owner_pid: int = 0
    #: The user that may reopen the taps by name; -1: nobody but root.
    owner_uid: int = -1
    #: Path of a network namespace, e.g. ``/proc/4711/ns/net``; empty: our own.
    netns: str = ""
    hostname: str = ""
    #: ``spec.subdomain``: put in front of the search list as KubeVirt does.
    subdomain: str = ""
    #: Where nameservers and search domains are read from, unless given here.
    resolv_conf: str = "/etc/resolv.conf"
    dns: tuple[str, ...] | None = None
    search: tuple[str, ...] | None = None
    interfaces: tuple[InterfaceRequest, ...] = ()


class ErrorReply(Model, frozen=True, kw_only=True):
    """Why it didn't work; everything that was begun has been undone."""

    reason: str
    message: str
    retry: Retry = "never"


class NetworkReply(Model, frozen=True, kw_only=True):
    """The answer. ``descriptors`` says how many came along; ``warnings`` are sentences for the log."""

    attachments: tuple[Attachment, ...] = ()
    descriptors: int = 0
    warnings: tuple[str, ...] = ()
    #: VMs (``namespace/name``) whose leftovers were removed on the way.
    cleaned: tuple[str, ...] = ()
    error: ErrorReply | None = None
