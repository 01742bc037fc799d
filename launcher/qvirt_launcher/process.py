"""QEMU as our direct child: started with the descriptors it needs and nothing else, dead when we are, its last words kept.

Also everything else about children: who is ours, and reaping orphans that become ours (as PID 1 of a pod, or as the
subreaper elsewhere) without taking an exit code away from asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from qvirt_launcher import native
from qvirt_launcher.errors import QemuError
from qvirt_launcher.ring import Ring

_log = logging.getLogger(__name__)

#: How much of QEMU's last output is kept, in bytes.
STDERR_TAIL: Final = 4096
_CHUNK: Final = 4096
#: After the child's exit: how long its output may take to arrive, in seconds. A grandchild may hold the pipe open.
_DRAIN_SECONDS: Final = 2.0


class Words:
    """What a child says: logged as it comes, the end of it kept. A pipe of our own.

    asyncio's would not do: there a child counts as running until its pipes are closed, by its own children too.
    """

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._ring = Ring(STDERR_TAIL)
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._reading, self._read)

    def tail(self) -> str:
        """The last 4 KiB, with no control characters in it."""
        return _printable(self._ring.content()).strip()

    async def finish(self) -> None:
        """Wait for the end of what is said (2 seconds at most), then hear no more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._ended.wait()
        self.close()

    def close(self) -> None:
        """Hear no more. Closing twice is fine."""
        if self._reading >= 0:
            asyncio.get_running_loop().remove_reader(self._reading)
            os.close(self._reading)
            self._reading = -1

    def _read(self) -> None:
        try:
            chunk = os.read(self._reading, _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._reading)
            self._ended.set()
            return
        self._ring.add(chunk)
        for line in _printable(chunk).splitlines():
            _log.warning("qemu: %s", line)


def _printable(data: bytes) -> str:
    text = data.decode(errors="replace")
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


class Qemu:
    """A running QEMU. Made by `start`."""

    def __init__(
        self, process: asyncio.subprocess.Process, words: Words, forget: Callable[[int], None]
    ) -> None:
        self._process = process
        self._words = words
        self._forget = forget

    @property
    def pid(self) -> int:
        """Its process id in our namespace."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not been seen to exit."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Its exit code, below zero for a signal; all that it said is in `tail` then."""
        try:
            code = await self._process.wait()
            self._forget(self._process.pid)
            await self._words.finish()
        finally:
            self._words.close()
        return code

    def tail(self) -> str:
        """The last 4 KiB of its output."""
        return self._words.tail()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has exited."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


class Children:
    """Which of our children have somebody who waits for them; the others are orphans that were given to us."""

    def __init__(self) -> None:
        self._own: set[int] = set()
        self._spawning = 0

    def adopt_orphans(self) -> None:
        """From now on reap whatever is given to us. In the running loop, once."""
        if os.getpid() != 1:
            native.become_subreaper()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap)

    @contextlib.contextmanager
    def spawning(self) -> Iterator[Callable[[int], None]]:
        """While a child is started nobody is reaped: it may end before we know its pid. Call the value with that pid."""
        self._spawning += 1
        try:
            yield self._own.add
        finally:
            self._spawning -= 1
            self.reap()

    def keep(self, pid: int) -> None:
        """The child is somebody's who waits for it."""
        self._own.add(pid)

    def forget(self, pid: int) -> None:
        """The child was waited for: its number may come back as somebody else's."""
        self._own.discard(pid)

    def reap(self) -> None:
        """Take the exit codes of orphans. Never waits for "any child": that would take asyncio's."""
        if self._spawning:
            return
        for pid in _children() - self._own:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _children() -> set[int]:
    """Children of all our threads (proc(5); needs CONFIG_PROC_CHILDREN, which every distribution has)."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with (
            contextlib.suppress(OSError),
            open(f"/proc/self/task/{thread}/children", encoding="ascii") as file,
        ):
            found.update(map(int, file.read().split()))
    return found


def watch_children_by_pidfd() -> None:
    """Have asyncio learn of exits through pidfds: no signal handler, no thread. The default from 3.12 on."""
    if sys.version_info < (3, 12):
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)


async def start(argv: Sequence[str], fds: Mapping[int, int], children: Children) -> Qemu:
    """Start QEMU; must run in the main thread, whose end is QEMU's end (PR_SET_PDEATHSIG goes by thread).

    :param fds: number in QEMU -> our descriptor. Ours are closed, whatever happens.
    :raise QemuError: the program is not there or can't be executed.
    """
    try:
        numbers = _move(fds)
    finally:
        for number in fds.values():
            os.close(number)
    words = Words()
    try:
        process = await _spawn(argv, numbers, words, children)
    except BaseException:
        words.close()
        raise
    finally:
        for number in (words.writing, *numbers):
            os.close(number)
    return Qemu(process, words, children.forget)


async def _spawn(
    argv: Sequence[str], fds: Sequence[int], words: Words, children: Children
) -> asyncio.subprocess.Process:
    try:
        with children.spawning() as started:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=words.writing,
                stderr=words.writing,
                pass_fds=fds,
                env=_environment(),
                start_new_session=True,
                preexec_fn=_as_child(),
            )
            started(process.pid)
    except FileNotFoundError:
        raise QemuError(f"{argv[0]} is not installed: apt install qemu-system-x86") from None
    except (OSError, ValueError) as error:
        raise QemuError(f"{argv[0]} can't be executed: {error}") from error
    return process


def _environment() -> dict[str, str]:
    """What QEMU is told of ours: where programs and time zones are; not what somebody's shell had exported."""
    kept = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8"}


def _as_child() -> Callable[[], None]:
    die_with_parent = native.dying_with_parent()

    def between_fork_and_exec() -> None:
        die_with_parent()
        # A core file would hold the guest's memory.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return between_fork_and_exec


def _move(fds: Mapping[int, int]) -> tuple[int, ...]:
    """Copies of our descriptors at the numbers that the command line names; not inherited by anybody else.

    :raise QemuError: a number is taken.
    """
    made: list[int] = []
    try:
        for number, source in fds.items():
            if _is_open(number):
                raise QemuError(f"descriptor {number} is in use in the launcher; this is a bug")
            os.dup2(source, number, inheritable=False)
            made.append(number)
    except BaseException:
        for number in made:
            os.close(number)
        raise
    return tuple(made)


def _is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True
