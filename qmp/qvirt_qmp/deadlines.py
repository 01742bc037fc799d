"""How long each command may take, in seconds, before we stop waiting for its answer.

QEMU runs commands one after the other in its main loop, so an answer that is late says that QEMU is stuck, unless
the command itself waits for storage or memory. Those have a line here, with the reason.
"""

from __future__ import annotations

from typing import Final

DEFAULT: Final = 5.0

#: From the first byte of the connection to the end of negotiation.
CONNECT: Final = 10.0

_STORAGE: Final = 30.0

_BY_COMMAND: Final[dict[str, float]] = {
    # 200 KiB of JSON that QEMU builds and Python decodes.
    "query-qmp-schema": 15.0,
    # Both drain and flush all disks.
    "stop": _STORAGE,
    "cont": _STORAGE,
    "block_resize": _STORAGE,
    "blockdev-add": _STORAGE,
    "blockdev-del": _STORAGE,
    "blockdev-reopen": _STORAGE,
    "blockdev-snapshot": _STORAGE,
    "blockdev-insert-medium": _STORAGE,
    "block-commit": _STORAGE,
    "block-stream": _STORAGE,
    "blockdev-mirror": _STORAGE,
    "blockdev-backup": _STORAGE,
    # Opens files, may map and touch memory.
    "object-add": _STORAGE,
    "device_add": 15.0,
    # Whatever the line says.
    "human-monitor-command": _STORAGE,
    "screendump": 15.0,
    # Write all of the guest's memory.
    "dump-guest-memory": 600.0,
    "pmemsave": 120.0,
    "memsave": 120.0,
}


def deadline_of(command: str) -> float:
    """Seconds that ``command`` may take."""
    return _BY_COMMAND.get(command, DEFAULT)
