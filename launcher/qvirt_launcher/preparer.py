"""The launcher's side of its worker: a child that was split off while there still were privileges, and is asked one thing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import Final

import msgspec

from qvirt_launcher.errors import PrepareError
from qvirt_launcher.forked import Forked
from qvirt_launcher.job import ANSWERS, Answer, NotReady, Ready, Request
from qvirt_launcher.process import Children

#: For images, seed, the trial of KVM and rendering; each has a shorter deadline of its own.
DEADLINE_SECONDS: Final = 120.0
#: For the worker to go once it has answered.
_EXIT_SECONDS: Final = 5.0
_LONGEST_ANSWER: Final = 16 << 20


class Preparer:
    """One worker, of use once. To be made in the running loop.

    :param worker: closed and waited for from now on.
    """

    def __init__(self, worker: Forked, children: Children) -> None:
        worker.sock.setblocking(False)
        children.keep(worker.pid)
        self._pid = worker.pid
        self._sock = worker.sock
        self._children = children
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        # The number is the child's as long as nobody has waited for it, and nobody but us does.
        self._handle = os.pidfd_open(worker.pid)
        self._loop.add_reader(self._handle, self._collect)

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
        if self._exited.done():
            return
        # One that has not given up its privileges yet can't be killed by us any more; it ends with its socket then.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    async def aclose(self) -> None:
        """See the worker out: it ends when its socket does, and is killed if not. At the latest it dies with us."""
        self._sock.close()
        for _ in range(2):
            if await self._exit_code() is not None:
                return
            self.abandon()

    def _collect(self) -> None:
        """It has ended."""
        self._loop.remove_reader(self._handle)
        _, status = os.waitpid(self._pid, 0)
        os.close(self._handle)
        self._children.forget(self._pid)
        self._exited.set_result(os.waitstatus_to_exitcode(status))

    async def _exit_code(self) -> int | None:
        """None: it is still there after a while."""
        _, late = await asyncio.wait({self._exited}, timeout=_EXIT_SECONDS)
        return None if late else self._exited.result()

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
