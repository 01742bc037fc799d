"""Tap devices by their own ioctl, so that the descriptors come at once and nothing needs to be persistent.

A tap made here vanishes when its last descriptor is closed, i.e. with QEMU. QEMU is given the descriptors and needs
neither ``/dev/net/tun`` nor a capability. Constants: Linux, include/uapi/linux/if_tun.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from qvirt_netsetup.errors import NotPermitted, TapBusy, from_errno

_TUN = "/dev/net/tun"
_VHOST = "/dev/vhost-net"
_TUNSETIFF = 0x400454CA
_TUNSETOWNER = 0x400454CC
_TUNSETGROUP = 0x400454CE
_IFF_TAP = 0x0002
_IFF_MULTI_QUEUE = 0x0100
_IFF_NO_PI = 0x1000
#: Worth a factor of four in throughput: checksums and segmentation are left to whoever needs them.
_IFF_VNET_HDR = 0x4000


def _open(name: str) -> int:
    try:
        return os.open(_TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotPermitted(
            f"tap {name}: {_TUN} is missing; load the kernel's tun module (modprobe tun), or let the container have the device"
        ) from error
    except OSError as error:
        raise from_errno(f"tap {name}: {_TUN}", error.errno or errno.EIO) from error


def create(name: str, *, queues: int = 1, owner_uid: int = -1) -> tuple[int, ...]:
    """Create a tap in the calling thread's network namespace.

    :param queues: descriptors to open; more than one makes a multi-queue tap.
    :param owner_uid: a user that may also attach by name; -1: nobody but root.
    :return: one descriptor a queue, close-on-exec and non-blocking.
    :raises TapBusy: the name is taken. The caller looks for links that are not taps, and for persistent taps, beforehand.
    :raises NotPermitted: no right, or no ``/dev/net/tun``.
    """
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)
    fds: list[int] = []
    try:
        for _ in range(queues):
            fds.append(_open(name))
            fcntl.ioctl(fds[-1], _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        if owner_uid >= 0:
            fcntl.ioctl(fds[0], _TUNSETOWNER, owner_uid)
    except OSError as error:
        _close(fds)
        code = error.errno or errno.EIO
        if code in (errno.EBUSY, errno.EINVAL, errno.EEXIST):
            raise TapBusy(name, os.strerror(code)) from error
        raise from_errno(f"tap {name}", code) from error
    except NotPermitted:
        _close(fds)
        raise
    return tuple(fds)


def open_vhost(count: int) -> tuple[int, ...]:
    """Descriptors of vhost-net for so many queues; none where kernel, module or right is missing, for it works without."""
    fds: list[int] = []
    try:
        for _ in range(count):
            fds.append(os.open(_VHOST, os.O_RDWR | os.O_CLOEXEC))  # noqa: PERF401  what is open must be known
    except OSError:
        _close(fds)
        return ()
    return tuple(fds)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
