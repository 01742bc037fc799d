"""The launcher room's errors.

LauncherError
├── HostError           this machine can't do it (missing program, busy name, no permission)
│   ├── ImageError      a disk image, or a container image that should hold one
│   ├── ClaimError      a claim's file or device
│   └── AlreadyRunning  a VM of this name has a living supervisor
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
