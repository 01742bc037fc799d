"""System calls that Python has no name for: prctl(2), capset(2), madvise(2) and io_uring_setup(2), through libc.

Resolved when this module is imported, so that they can be called between fork and exec and after privileges are gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_prctl = _LIBC.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_prctl.restype = ctypes.c_int
_capset = _LIBC.capset
_capset.restype = ctypes.c_int
_madvise = _LIBC.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_madvise.restype = ctypes.c_int

_syscall = _LIBC.syscall
_syscall.restype = ctypes.c_long

_PR_SET_PDEATHSIG: Final = 1
_PR_GET_PDEATHSIG: Final = 2
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_MADV_DONTNEED: Final = 4

#: The same on all architectures (asm-generic/unistd.h).
_IO_URING_SETUP: Final = 425
_IO_URING_PARAMS_BYTES: Final = 120

_present_death_signal = ctypes.c_int()


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def set_death_signal(number: int) -> None:
    """Have the kernel send us this signal when the *thread* that forked us ends. Cleared by setuid(2). 0: none."""
    _check(_prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "PR_SET_PDEATHSIG")


def death_signal() -> int:
    """The signal set by `set_death_signal`; 0: none."""
    address = ctypes.addressof(_present_death_signal)
    _check(_prctl(_PR_GET_PDEATHSIG, address, 0, 0, 0), "PR_GET_PDEATHSIG")
    return _present_death_signal.value


def dying_with_parent() -> Callable[[], None]:
    """For `preexec_fn`: the child is killed when this process ends, even if it ended before the child could say so."""
    parent = os.getpid()
    return lambda: die_with(parent)


def die_with(parent: int) -> None:
    """In a child, before anything else: be killed when ``parent`` ends, even if it has ended already."""
    set_death_signal(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Orphans among our descendants become our children."""
    _check(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def forbid_new_privileges() -> None:
    """No exec after this one gains anything: setuid bits and file capabilities are ignored, here and in all children."""
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def drop_bounding_set() -> None:
    """Remove every capability from the bounding set.

    :raise PermissionError: CAP_SETPCAP is missing.
    """
    capability = 0
    while _prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        _check(_prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "PR_CAPBSET_DROP")
        capability += 1


def clear_capabilities() -> None:
    """Empty the ambient, effective, permitted and inheritable sets."""
    _prctl(
        _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0
    )  # EINVAL before Linux 4.3, which has none
    header = _CapHeader(version=_CAPABILITY_VERSION_3, pid=0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_capset(ctypes.byref(header), ctypes.byref(nothing)), "capset")


def give_back(start: int, length: int) -> None:
    """Let go of the pages of a mapping *that are as their file has them*; they are read again when they are needed.

    Anything written to a private mapping would be lost: only for mappings that have no page of their own (`settle`).
    """
    _check(_madvise(start, length, _MADV_DONTNEED), "MADV_DONTNEED")


def has_io_uring() -> bool:
    """Whether this process gets an io_uring: by its kernel, the sysctl io_uring_disabled, and the filter of a container's runtime."""
    parameters = (ctypes.c_char * _IO_URING_PARAMS_BYTES)()
    ring = _syscall(ctypes.c_long(_IO_URING_SETUP), ctypes.c_uint(1), parameters)
    if ring < 0:
        return False
    os.close(ring)
    return True


def rename(name: str) -> None:
    """What this process is called from now on, in both places where others look: its name, and its command line.

    The line lies where the kernel put it at exec; Python has copies of its own.
    """
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        # proc(5): fields 48 and 49; the first behind the parenthesis is the third.
        start, end = map(int, file.read().rpartition(")")[2].split()[45:47])
    text = name.encode()
    if end - start > len(text):
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, text, len(text))
    with open("/proc/self/comm", "wb") as comm:
        comm.write(text)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
