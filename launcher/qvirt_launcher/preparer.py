"""The launcher's side of its worker: a child that was started while there still were privileges, and is asked one thing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from typing import Final

import msgspec

from qvirt_launcher import native
from qvirt_launcher.errors import PrepareError
from qvirt_launcher.job import ANSWERS, Answer, Birth, NotReady, Ready, Request
from qvirt_launcher.privileges import User
from qvirt_launcher.process import Children

#: For images, seed, the trial of KVM and rendering; each has a shorter deadline of its own.
DEADLINE_SECONDS: Final = 120.0
#: For the worker to go once it has answered.
_EXIT_SECONDS: Final = 5.0
_LONGEST_ANSWER: Final = 16 << 20
#: Isolated, so that neither the environment nor the current directory puts anything into it; the path is handed over.
_BOOT: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1])['path'];"
    " from qvirt_launcher.worker import main; main(sys.argv[1])"
)


class Preparer:
    """One worker. Made by `spawn`, of use once."""

    def __init__(
        self, process: asyncio.subprocess.Process, sock: socket.socket, children: Children
    ) -> None:
        self._process = process
        self._sock = sock
        self._children = children

    @classmethod
    async def spawn(cls, user: User | None, cache_dir: str, children: Children) -> Preparer:
        """Start the worker; it imports what it needs, becomes ``user`` and waits.

        :raise OSError: there is no room for another process.
        """
        ours, theirs = socket.socketpair()
        birth = Birth(path=tuple(filter(None, sys.path)), user=user, cache_dir=cache_dir)
        with theirs, children.spawning() as started:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-c",
                _BOOT,
                msgspec.json.encode(birth).decode(),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=native.dying_with_parent(),
            )
            started(process.pid)
        ours.setblocking(False)
        return cls(process, ours, children)

    async def ask(self, request: Request) -> Ready:
        """Have everything prepared.

        :raise PrepareError: it can't be, or took too long; the message says what to do about it.
        """
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                answer = await self._exchange(request)
        except TimeoutError:
            raise PrepareError(
                f"preparing disks and command line took more than {DEADLINE_SECONDS:g} s; is the storage stuck?"
            ) from None
        finally:
            await self.aclose()
        match answer:
            case Ready():
                return answer
            case NotReady():
                raise PrepareError(answer.message)

    def abandon(self) -> None:
        """End the worker; an `ask` under way fails."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        # One that has not given up its privileges yet can't be killed by us any more; it ends with its socket then.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            self._process.send_signal(signal.SIGKILL)

    async def aclose(self) -> None:
        """See the worker out: it ends when its socket does, and is killed if not. At the latest it dies with us."""
        self._sock.close()
        for _ in range(2):
            if await self._exit_code() is not None:
                self._children.forget(self._process.pid)
                return
            self.abandon()

    async def _exit_code(self) -> int | None:
        """None: it is still there after a while."""
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            return None

    async def _exchange(self, request: Request) -> Answer:
        loop = asyncio.get_running_loop()
        received = bytearray()
        try:
            await loop.sock_sendall(self._sock, msgspec.json.encode(request))
            self._sock.shutdown(socket.SHUT_WR)
            while chunk := await loop.sock_recv(self._sock, 1 << 16):
                received += chunk
                if len(received) > _LONGEST_ANSWER:
                    raise PrepareError("the worker's answer has no end; this is a bug")
            answer = ANSWERS.decode(received)
        except (OSError, msgspec.DecodeError):
            raise PrepareError(await self._death()) from None
        return answer

    async def _death(self) -> str:
        code = await self._exit_code()
        if code is None:
            return "the worker that prepares disks hung up and does not end; its log has the cause"
        if code == -signal.SIGKILL:
            return "the worker that prepares disks was killed; is the machine or the pod out of memory?"
        return f"the worker that prepares disks ended with code {code} and no answer; its log has the cause"
