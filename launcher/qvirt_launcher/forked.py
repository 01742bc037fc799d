"""A copy of this process that goes on with something else: cheaper than a new one, which would import again what we have.

Only for the time before there are threads, an event loop, or anything else that a copy can't share.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

import msgspec

from qvirt_launcher import native

_STDIN, _STDOUT, _STDERR = 0, 1, 2
#: What a Python that ends with a traceback exits with.
_FAILED: Final = 1


class Forked(msgspec.Struct, frozen=True, kw_only=True):
    """The copy, and our end of a socket that is its standard input."""

    pid: int
    sock: socket.socket


def fork(task: Callable[[], None], name: str, signals: Iterable[int]) -> Forked:
    """Have a copy of this process do ``task`` and end. It has a session of its own and is killed when we end.

    :param name: what the copy is called, so that nobody takes it for us.
    :param signals: those that we handle, and it does not.
    :raise OSError: there is no room for another process.
    """
    parent = os.getpid()
    ours, theirs = socket.socketpair()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        _become(task, name, theirs.fileno(), signals, parent)
    theirs.close()
    return Forked(pid=pid, sock=ours)


def _become(
    task: Callable[[], None], name: str, stdin: int, signals: Iterable[int], parent: int
) -> NoReturn:
    """Never comes back: what our caller's frames would do next is the parent's to do."""
    code = _FAILED
    try:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        native.die_with(parent)
        native.rename(name)
        os.setsid()
        os.dup2(stdin, _STDIN)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, _STDOUT)
        os.closerange(_STDERR + 1, os.sysconf("SC_OPEN_MAX"))
        task()
        code = 0
    except BaseException:  # noqa: BLE001  there is nobody above us
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
