"""What can go wrong with a VM's network.

NetworkError
├── NotPermitted        no CAP_NET_ADMIN, or no /dev/net/tun
├── NamespaceGone       the network namespace was asked for by a path that isn't there (any more)
├── TapBusy             a link with the tap's name exists already
├── NoFreeNetwork       no subnet or address is left
├── InterfaceMissing    the namespace has no interface to hand to the guest
├── RequestRefused      the request contradicts itself or what runs already
├── StateUnreadable     our own state file can't be read or locked
├── KernelRefused       the kernel said no to one operation
└── SetupFailed         the child that does the work ended, or said something that isn't an answer
"""

from __future__ import annotations

import errno
import os
from typing import ClassVar

from qvirt_crds.errors import QvirtError, Retry


class NetworkError(QvirtError):
    """The network of a VM could not be made or removed."""

    reason = "NetworkFailed"


class NotPermitted(NetworkError):
    """We lack a right that only root has."""

    reason = "NetworkNotPermitted"


class NamespaceGone(NetworkError):
    """The network namespace ended before we came, usually with its pod."""

    reason = "NamespaceGone"
    retry = "later"


class TapBusy(NetworkError):
    """A link of this name exists and isn't ours to take."""

    reason = "TapBusy"
    retry = "later"

    def __init__(self, name: str, detail: str = "") -> None:
        self.name = name
        tail = f" ({detail})" if detail else ""
        super().__init__(
            f"tap {name}: busy{tail}; end the process that holds it, or delete the link: ip link del {name}"
        )


class NoFreeNetwork(NetworkError):
    """Every candidate overlaps with something that this machine already reaches."""

    reason = "NoFreeNetwork"
    retry = "later"


class InterfaceMissing(NetworkError):
    """There is nothing that a guest could take over."""

    reason = "InterfaceMissing"
    retry = "later"


class RequestRefused(NetworkError):
    """The request can't be meant."""

    reason = "NetworkRequestRefused"


class StateUnreadable(NetworkError):
    """The file that remembers what to undo is damaged, or held by somebody else for too long."""

    reason = "NetworkStateUnreadable"


class KernelRefused(NetworkError):
    """One operation failed; what came before it was undone.

    :param what: the operation, with the object's name.
    :param code: errno.
    """

    reason = "KernelRefused"
    retry: ClassVar[Retry] = "later"

    def __init__(self, what: str, code: int, detail: str = "") -> None:
        self.code = code
        name = errno.errorcode.get(code, str(code))
        super().__init__(f"{what}: {detail or os.strerror(code)} ({name})")


class SetupFailed(NetworkError):
    """The helper process gave no answer that we understand, or one with an error in it."""

    reason = "NetworkSetupFailed"
    retry = "later"


def from_errno(what: str, code: int, detail: str = "") -> NetworkError:
    """The error for a failed system call or netlink request: `NotPermitted` for EPERM and EACCES."""
    if code in (errno.EPERM, errno.EACCES):
        return NotPermitted(
            f"{what}: not permitted; start as root (CAP_NET_ADMIN), or use user-mode networking"
        )
    return KernelRefused(what, code, detail)
