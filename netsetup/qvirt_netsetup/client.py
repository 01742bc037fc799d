"""Ask a short-lived child process to do the work, so that pyroute2 never loads in the asking one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
from typing import IO, Final

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
    # A file and not a pipe, so that nobody need read it while the conversation goes on.
    with ours, theirs, tempfile.TemporaryFile() as stderr:
        # -P: no module of the working directory, which may be anybody's, is ever imported with our rights.
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "qvirt_netsetup", "--fd", str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            # A terminal's Ctrl-C is for the supervisor; half a set-up helps nobody.
            start_new_session=True,
        )
        theirs.close()
        try:
            async with asyncio.timeout(deadline):
                document, fds = await _converse(request, ours)
        except TimeoutError as error:
            raise SetupFailed(f"network set-up: no answer within {deadline:.0f} s") from error
        finally:
            # It has answered, or nobody waits for its answer any more.
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        return _decode(document, stderr), fds


async def _converse(request: NetworkRequest, sock: socket.socket) -> tuple[bytes, tuple[int, ...]]:
    sock.setblocking(False)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its stderr says why
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, msgspec.json.encode(request))
        sock.shutdown(socket.SHUT_WR)
    return await wire.receive_soon(sock)


def _decode(document: bytes, stderr: IO[bytes]) -> NetworkReply:
    try:
        return msgspec.json.decode(document, type=NetworkReply)
    except msgspec.DecodeError as error:
        stderr.seek(0)
        tail = stderr.read().decode(errors="replace").strip().splitlines()[-3:]
        raise SetupFailed(
            f"network set-up: the helper gave no answer; its last words: {' / '.join(tail) or 'none'}"
        ) from error
