"""The door to `qemu.qmp`, which opens without OpenSSL too.

The library imports ``ssl`` for one name in annotations; its TLS transports are none of ours, and OpenSSL is the largest thing
that a launcher could load. asyncio does without by itself. So where ``ssl`` can't be imported (it was left out of the image,
or of the process), the library is given a name to import.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

_PACKAGE = "ssl"


@contextlib.contextmanager
def _something_to_import() -> Iterator[None]:
    """While this lasts ``from ssl import SSLContext`` works; afterwards everything is as it was."""
    try:
        import ssl  # noqa: F401
    except ImportError:
        # asyncio has looked for it by now, or it would take ours for the real one.
        assert asyncio.sslproto.ssl is None  # type: ignore[attr-defined]
    else:
        yield
        return
    absent = _PACKAGE in sys.modules
    stand_in = ModuleType(_PACKAGE)
    stand_in.SSLContext = type("SSLContext", (), {})  # type: ignore[attr-defined]
    sys.modules[_PACKAGE] = stand_in
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]
        if absent:
            # None: it was left out of this process (the import system's way to say so).
            sys.modules[_PACKAGE] = None  # type: ignore[assignment]


with _something_to_import():
    from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, Message, QMPClient
    from qemu.qmp.protocol import Runstate, StateError
    from qemu.qmp.qmp_client import BadReplyError
    from qemu.qmp.util import flush

__all__ = [
    "BadReplyError",
    "ConnectError",
    "ExecInterruptedError",
    "ExecuteError",
    "Message",
    "QMPClient",
    "Runstate",
    "StateError",
    "flush",
]
