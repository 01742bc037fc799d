"""The guest's screen as a picture, made by QEMU itself (``screendump``, as PNG from 7.1 on)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Final

from qvirt_qmp.client import Monitor
from qvirt_qmp.errors import CommandFailed, QmpError

#: Of a picture, in bytes: in base64 it must fit into one line of QMP.
_LARGEST: Final = 5 << 20
#: For a screen that was asleep to be drawn again.
_WAKE_SECONDS: Final = 0.3
#: To the right and back: a mouse by steps, a tablet (0 to 32767) to the middle of the screen.
_MOVES: Final = (
    ({"type": "rel", "data": {"axis": "x", "value": 1}},),
    ({"type": "rel", "data": {"axis": "x", "value": -1}},),
    (
        {"type": "abs", "data": {"axis": "x", "value": 16384}},
        {"type": "abs", "data": {"axis": "y", "value": 16384}},
    ),
)


async def shoot(monitor: Monitor, path: str, *, wake: bool) -> bytes:
    """A PNG.

    :param path: where QEMU writes it; gone afterwards.
    :param wake: move the pointer first.
    :raise QmpError: no screen, or a picture that is too large.
    """
    if wake:
        await _move_pointer(monitor)
    try:
        await monitor.execute("screendump", {"filename": path, "format": "png"})
        return _read(path)
    except OSError as error:
        raise CommandFailed(
            "vm-screenshot", "GenericError", f"no picture: {error.strerror}"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


async def _move_pointer(monitor: Monitor) -> None:
    for events in _MOVES:
        # Without a pointer of that kind there is nobody to tell.
        with contextlib.suppress(QmpError):
            await monitor.execute("input-send-event", {"events": list(events)})
    await asyncio.sleep(_WAKE_SECONDS)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        picture = file.read(_LARGEST + 1)
    if len(picture) > _LARGEST:
        raise CommandFailed(
            "vm-screenshot", "GenericError", f"the picture is larger than {_LARGEST} bytes"
        )
    return picture
