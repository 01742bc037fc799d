"""Programs run inside the guest by its agent, each to its end or to its deadline.

The agent keeps what it knows of a program until somebody asks for its end. One that outlived its deadline is killed, and asked
for later, so that probes that hang don't fill the guest.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import Final

from qvirt_crds.agent import ExecReturn
from qvirt_launcher import agent_replies
from qvirt_launcher.agent_channel import Channel
from qvirt_launcher.errors import AgentRefused, AgentSilent

#: Between looks at a program, in seconds: the first and the longest.
_FIRST_LOOK: Final = 0.05
_LONGEST_LOOK: Final = 1.0
#: Programs that outlived their deadline and have not ended yet.
MOST_LEFT: Final = 8
#: Of output that is handed on.
_MOST_OUTPUT: Final = 64 * 1024
_SIGNALLED: Final = 128
#: The shell of a Linux guest; in others a program that hangs goes on.
_KILL: Final = ("/bin/sh", "-c", 'kill -KILL "$1"', "sh")


class Programs:
    """The programs of one guest."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        #: Process ids in the guest of those that outlived their deadline.
        self._left: set[int] = set()
        self._session = channel.session

    async def run(
        self, path: str, args: tuple[str, ...], *, seconds: float, given: bytes = b""
    ) -> ExecReturn:
        """Run a program to its end.

        :param seconds: how long that may take in all. One that takes longer is killed when the next one is run.
        :param given: its standard input.
        :raise AgentError: it can't be run, or did not end in time.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._reap(seconds)
                pid = await self._start(path, args, given, seconds)
                return await self._end(pid, seconds)
        except TimeoutError:
            raise AgentSilent(
                f"guest-exec: {path} did not end within {seconds:g} s in the guest"
            ) from None

    async def _start(self, path: str, args: tuple[str, ...], given: bytes, seconds: float) -> int:
        arguments: dict[str, object] = {"path": path, "arg": list(args), "capture-output": True}
        if given:
            arguments["input-data"] = base64.b64encode(given).decode()
        reply = await self._channel.execute("guest-exec", arguments, deadline=seconds)
        return agent_replies.convert("guest-exec", reply, agent_replies.Started).pid

    async def _end(self, pid: int, seconds: float) -> ExecReturn:
        pause = _FIRST_LOOK
        try:
            while not (status := await self._look(pid, seconds)).exited:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_LOOK)
        except (asyncio.CancelledError, AgentSilent):
            self._left.add(pid)
            raise
        return _returned(status)

    async def _look(self, pid: int, seconds: float) -> agent_replies.ExecStatus:
        reply = await self._channel.execute("guest-exec-status", {"pid": pid}, deadline=seconds)
        return agent_replies.convert("guest-exec-status", reply, agent_replies.ExecStatus)

    async def _reap(self, seconds: float) -> None:
        """Kill what outlived its deadline, and let the agent forget what has ended.

        :raise AgentRefused: too many will not end.
        """
        if self._session != self._channel.session:
            # The agent is another one now, and knows nothing of the old one's programs.
            self._session = self._channel.session
            self._left.clear()
        for pid in tuple(self._left):
            try:
                ended = (await self._look(pid, seconds)).exited
            except AgentRefused:
                ended = True  # the agent doesn't know it (any more)
            if ended:
                self._left.discard(pid)
            else:
                await self._kill(pid, seconds)
        if len(self._left) >= MOST_LEFT:
            raise AgentRefused(
                f"guest-exec: {len(self._left)} programs that were started in the guest before have not ended"
            )

    async def _kill(self, pid: int, seconds: float) -> None:
        shell, *args = _KILL
        with contextlib.suppress(AgentRefused):
            await self._start(shell, (*args, str(pid)), b"", seconds)


def _returned(status: agent_replies.ExecStatus) -> ExecReturn:
    code = status.exitcode
    if code is None:
        code = _SIGNALLED + (status.signal or 0)
    return ExecReturn(
        exit_code=code, stdout=_readable(status.out_data), stderr=_readable(status.err_data)
    )


def _readable(output: bytes) -> str:
    return output[:_MOST_OUTPUT].decode(errors="replace")
