"""Going into the background once the guest runs, and not before: until then errors and exit code are the foreground's."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qvirt_launcher.cli import exits

_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Background:
    """In the background process: the way to let the foreground go."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def ready(self, log: Path) -> None:
        """From now on we are on our own: standard output and error go to the log."""
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(nothing, 0)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(nothing)
        os.close(handle)
        self._tell(exits.OK)

    def failed(self, code: int) -> None:
        """It ended before it was ready (ignored after `ready`)."""
        self._tell(code)

    def _tell(self, code: int) -> None:
        if self._pipe >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._pipe, bytes([code]))
            os.close(self._pipe)
            self._pipe = -1


def run_detached(work: Callable[[Background], int]) -> int:
    """Run ``work`` in a child in a session of its own; return when it says that it is ready, or has ended.

    :return: in the foreground, the exit code so far. In the child this function does not return.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _in_child(work, Background(writing))
    os.close(writing)
    for number in _FORWARDED:
        signal.signal(number, lambda got, _: _pass_on(child, got))
    with open(reading, "rb") as pipe:
        told = pipe.read(1)
    if told:
        return told[0]
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else exits.FAILED


def _in_child(work: Callable[[Background], int], background: Background) -> None:
    os.setsid()
    code = exits.FAILED
    try:
        code = work(background)
    finally:
        # The traceback of a bug is printed by the interpreter's way out, which we skip only when all is well.
        background.failed(code)
        if sys.exc_info()[0] is None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _pass_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)
