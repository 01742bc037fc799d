"""Ask a short-lived child process to do the work, so that pyroute2 never loads in the asking one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import Final

import msgspec

from qvirt_netsetup import wire
from qvirt_netsetup.errors import SetupFailed
from qvirt_netsetup.request import NetworkReply, NetworkRequest

#: Longer than the child's own deadlines (30 s for the lock).
_DEADLINE: Final = 60.0


async def call(
    request: NetworkRequest, *, deadline: float = _DEADLINE
) -> tuple[NetworkReply, tuple[int, ...]]:
    """Run one request in a child and wait for its answer.

    :param deadline: seconds.
    :return: the reply and its descriptors (close-on-exec), which the caller passes on and closes. A reply with an `error`
        has none; the caller decides what to do about it.
    :raises SetupFailed: the child didn't answer.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "qvirt_netsetup",
            "--fd",
            str(theirs.fileno()),
            pass_fds=(theirs.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            # A terminal's Ctrl-C is for the supervisor; half a set-up helps nobody.
            start_new_session=True,
        )
        theirs.close()
        try:
            async with asyncio.timeout(deadline):
                return await _converse(request, ours, child)
        except TimeoutError as error:
            raise SetupFailed(f"network set-up: no answer within {deadline:.0f} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _converse(
    request: NetworkRequest, sock: socket.socket, child: asyncio.subprocess.Process
) -> tuple[NetworkReply, tuple[int, ...]]:
    assert child.stderr is not None
    with contextlib.suppress(BrokenPipeError):  # its stderr says why
        await asyncio.to_thread(wire.send, sock, msgspec.json.encode(request))
    receiving = asyncio.to_thread(wire.receive, sock)
    (document, fds), stderr = await asyncio.gather(receiving, child.stderr.read())
    await child.wait()
    try:
        reply = msgspec.json.decode(document, type=NetworkReply)
    except msgspec.DecodeError as error:
        for fd in fds:
            os.close(fd)
        tail = stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise SetupFailed(
            f"network set-up: the helper ended with code {child.returncode} and no answer; its last words: {' / '.join(tail) or 'none'}"
        ) from error
    return reply, fds
