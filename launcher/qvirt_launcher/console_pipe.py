"""The guest's serial console as a log of the pod: into a pipe that a sidecar copies to its standard output.

A pipe bounds itself, and ends with this process however that ends: so the sidecar ends with the guest. Nobody waits for its
reader: what doesn't fit is dropped, and said so.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
from typing import Final

from qvirt_launcher.errors import HostError

_log = logging.getLogger(__name__)

#: What the kernel keeps until the sidecar has started, in bytes.
KEPT: Final = 256 * 1024


class ConsolePipe:
    """:param path: where the sidecar looks for it. It appears there when it has a writer, so that a reader never meets none.

    :raise HostError: it can't be made.
    """

    def __init__(self, path: str) -> None:
        made = f"{path}.new"
        self._lost = 0
        self._handle = -1
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(made)
            os.mkfifo(made, 0o600)
            # For reading as well: else opening would wait for the reader, and writing end when it does.
            flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
            self._handle = os.open(made, flags)
            if not stat.S_ISFIFO(os.fstat(self._handle).st_mode):
                raise HostError(f"{path}: somebody else has put a file there")
            os.rename(made, path)
        except OSError as error:
            self.close()
            raise HostError(
                f"{path}: the console's pipe can't be made: {error.strerror}"
            ) from error
        with contextlib.suppress(OSError):  # the administrator's limit may be lower
            fcntl.fcntl(self._handle, fcntl.F_SETPIPE_SZ, KEPT)

    def write(self, chunk: bytes) -> None:
        """Append, or drop what does not fit."""
        if self._handle < 0:
            return
        if self._lost:
            note = f"\n[{self._lost} bytes of the console were lost here]\n".encode()
            if self._put(note) < len(note):
                self._lost += len(chunk)
                return
            self._lost = 0
        self._lost += len(chunk) - self._put(chunk)

    def close(self) -> None:
        """Its end, for the reader, too. Closing twice is fine."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _put(self, data: bytes) -> int:
        """How much of it went."""
        try:
            return os.write(self._handle, data)
        except BlockingIOError:
            return 0
