"""Files of another root directory, opened as if that root were ours: no symbolic link in it leads out.

openat2(2) with RESOLVE_IN_ROOT (Linux 5.6); Python has no name for it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

# The same number on every architecture.
_OPENAT2: Final = 437
_RESOLVE_IN_ROOT: Final = 0x10
#: Somebody moved or mounted something, anywhere, while a path with ".." was followed: ask again (openat2(2), EAGAIN).
_TRIES: Final = 128
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_in(root: int, path: str, flags: int) -> int:
    """A close-on-exec descriptor of ``path`` below the directory ``root``.

    :param root: descriptor of a directory.
    :raises OSError: as open(2).
    """
    how = _How(flags=flags | os.O_CLOEXEC, mode=0, resolve=_RESOLVE_IN_ROOT)
    for _ in range(_TRIES):
        handle: int = _libc.syscall(
            _OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
        )
        if handle >= 0:
            return handle
        code = ctypes.get_errno()
        if code != errno.EAGAIN:
            break
    raise OSError(code, os.strerror(code), path)
