"""The launcher room's errors.

LauncherError
├── HostError           this machine can't do it (missing program, busy name, no permission)
│   ├── ImageError      a disk image, or a container image that should hold one
│   ├── ClaimError      a claim's file or device
│   └── AlreadyRunning  a VM of this name has a living supervisor
├── PrepareError        disks, seed or command line can't be made
├── QemuError           QEMU can't be started, or ended when it should not
├── PrivilegeError      root could not become an ordinary user
├── RenderError         a value that no command line can carry
├── NotRunning          no VM of that name
└── UsageError          the command line contradicts itself or the manifest
"""

from __future__ import annotations

from typing import ClassVar

from qvirt_crds.errors import QvirtError


class LauncherError(QvirtError):
    """Root of this room's tree."""

    reason: ClassVar[str] = "LauncherError"


class HostError(LauncherError):
    """This machine can't do what was asked, for a reason outside of the manifest."""

    reason = "HostError"


class ImageError(HostError):
    """A disk image, or the container image around it, is missing, unreadable or not what it says."""

    reason = "ImageError"


class ClaimError(HostError):
    """A claim has no usable file or device on this machine."""

    reason = "ClaimError"


class AlreadyRunning(HostError):
    """The name is taken by a VM that runs."""

    reason = "AlreadyRunning"


class NotRunning(LauncherError):
    """No VM of that name runs here."""

    reason = "NotRunning"


class UsageError(LauncherError):
    """An option that contradicts another one, or that names something the manifest doesn't have."""

    reason = "UsageError"


class PrepareError(LauncherError):
    """A disk, a seed or the command line can't be made from the spec and what was found on this machine."""

    reason = "PrepareFailed"


class QemuError(LauncherError):
    """QEMU can't be started, or ended by itself; the message has the tail of what it said."""

    reason = "QemuFailed"


class PrivilegeError(LauncherError):
    """Privileges could not be given up. Nothing may go on after it."""

    reason = "PrivilegesKept"


class RenderError(LauncherError):
    """A value of the spec has a line break or another character that no argument of QEMU can carry."""

    reason = "RenderError"
