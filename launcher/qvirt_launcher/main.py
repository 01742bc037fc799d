"""virt-launcher: the process around one guest, PID 1 of its pod. Wiring only.

Signals come first, before anything that takes time is imported: a PID 1 without a handler loses its SIGTERM for good. Then what
it does without is left out (docs/adr/0007): OpenSSL alone would take a fifth of its memory.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

#: The door to OpenSSL and the part of hashlib that uses it; asyncio, hashlib and `qvirt_qmp.library` do without. What msgspec
#: would look into if it is installed, and which brings the whole of `inspect` (`small_inspect`).
_LEFT_OUT = ("ssl", "_hashlib", "typing_extensions")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: How many of them came before the loop ran.
_early: list[int] = []


def _note_early(number: int, _frame: FrameType | None) -> None:
    _early.append(number)


def main() -> int:
    """The console script ``virt-launcher``."""
    for number in _SIGNALS:
        signal.signal(number, _note_early)
    for name in _LEFT_OUT:
        # What the import system takes for "there is no such module".
        sys.modules[name] = None  # type: ignore[assignment]
    # Late on purpose, see above.
    from qvirt_launcher.start import run

    return run(sys.argv[1:], _SIGNALS, _early)


if __name__ == "__main__":
    sys.exit(main())
