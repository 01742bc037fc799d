"""Children: QEMU's descriptors, last words and death; orphans that become ours, as PID 1 too."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.launcher.conftest import DEADLINE, Launch, firmware_only

from qvirt_launcher import native, process
from qvirt_launcher.errors import QemuError
from qvirt_launcher.process import STDERR_TAIL, Children, start

#: One orphan that ends at once, given away by a parent that ends at once.
ORPHAN = "import os, sys\nif os.fork() == 0:\n    os.execv('/bin/sleep', ['sleep', '0.1'])\n"


@pytest.fixture
async def children() -> Children:
    process.watch_children_by_pidfd()
    return Children()


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


async def test_descriptors_arrive_at_their_numbers(children: Children) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        handle = theirs.detach()
        child = await start(
            [sys.executable, "-S", "-c", "import os; os.write(210, b'hello')"],
            {210: handle},
            children,
        )
        assert await child.wait() == 0
        assert ours.recv(100) == b"hello"
        # Ours is closed, so the end is seen.
        assert ours.recv(100) == b""
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(handle)


async def test_a_number_that_is_taken_is_refused_and_nothing_leaks(children: Children) -> None:
    reading, writing = os.pipe()
    os.dup2(reading, 211)
    before = os.listdir("/proc/self/fd")
    try:
        with pytest.raises(QemuError, match="211"):
            await start(shell("true"), {210: reading, 211: writing}, children)
        assert len(os.listdir("/proc/self/fd")) == len(before) - 2
    finally:
        os.close(211)


async def test_nothing_else_is_inherited(children: Children) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        child = await start(shell(f"echo x >&{writing}"), {}, children)
        assert await child.wait() != 0
    finally:
        os.close(reading)
        os.close(writing)


async def test_the_tail_of_its_words_is_kept(children: Children) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf 'end\\033[1m\\377' >&2; exit 3"
    child = await start(shell(script), {}, children)
    assert await child.wait() == 3
    tail = child.tail()
    assert tail.endswith("line 1999\nend\ufffd[1m\ufffd")
    assert "line 1000" not in tail
    assert len(tail) <= STDERR_TAIL


async def test_a_grandchild_that_keeps_the_pipe_does_not_keep_us(children: Children) -> None:
    child = await start(shell("sleep 1000 & echo $!"), {}, children)
    async with asyncio.timeout(DEADLINE):
        assert await child.wait() == 0
    os.kill(int(child.tail()), signal.SIGKILL)


@pytest.mark.parametrize("program", ["/nonexistent/qemu", "/etc/hostname"])
async def test_a_program_that_cannot_be_started(children: Children, program: str) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with pytest.raises(QemuError, match=program):
            await start([program], {200: theirs.detach()}, children)
        assert ours.recv(1) == b""


async def test_it_has_a_session_of_its_own_and_no_core(children: Children) -> None:
    child = await start(shell("ps -o sid= -p $$; ulimit -c; echo $$"), {}, children)
    assert await child.wait() == 0
    session, core, pid = child.tail().split()
    assert (session, core) == (pid, "0")


async def test_what_a_shell_exported_is_not_handed_on(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    child = await start(["/usr/bin/env"], {}, children)
    assert await child.wait() == 0
    assert "SECRET_TOKEN" not in child.tail()
    assert "TZ=Europe/Berlin" in child.tail()


async def test_killed_by_a_signal(children: Children) -> None:
    child = await start(["/bin/sleep", "1000"], {}, children)
    child.send_signal(signal.SIGKILL)
    assert await child.wait() == -9
    child.send_signal(signal.SIGKILL)  # nobody there any more: no error
    assert not child.alive


# --- orphans ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def adopting(children: Children) -> AsyncIterator[Children]:
    children.adopt_orphans()
    yield children
    asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
    native._prctl(native._PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


async def test_orphans_are_reaped_and_our_own_keep_their_codes(adopting: Children) -> None:
    before = set(process._children())  # servers that other tests have started
    codes = []
    for number in range(5):
        child = await start(
            [sys.executable, "-S", "-c", ORPHAN + f"sys.exit({number})"], {}, adopting
        )
        codes.append(await child.wait())
    assert codes == [0, 1, 2, 3, 4]
    async with asyncio.timeout(DEADLINE):
        while set(process._children()) - before:
            await asyncio.sleep(0.02)


async def test_a_child_of_which_nobody_knows_yet_is_not_reaped(adopting: Children) -> None:
    with adopting.spawning() as started:
        child = subprocess.Popen(shell("exit 7"))
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        await asyncio.sleep(0)
        adopting.reap()
        started(child.pid)
    adopting.reap()
    assert child.wait() == 7


# --- the whole launcher as PID 1 -------------------------------------------------------------------------------------

#: The second process of `unshare --fork` is PID 1 inside.
PID_1 = ("unshare", "--pid", "--fork", "--mount-proc")


def inside(pid: int) -> int:
    """The PID 1 that `unshare` waits for, as it is called out here."""
    (child,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return child


@pytest.mark.root
@pytest.mark.qemu
async def test_as_pid_1_a_signal_ends_the_guest(launch: Launch) -> None:
    async with launch(prefix=PID_1) as launched:
        await launched.sync(firmware_only(terminationGracePeriodSeconds=1))
        report = await launched.report("Running", "Failed")
        assert report.launcher_pid == 1
        os.kill(inside(launched.process.pid), signal.SIGTERM)
        assert await launched.wait() == 7


@pytest.mark.root
@pytest.mark.qemu
async def test_as_pid_1_orphans_are_reaped(launch: Launch) -> None:
    async with launch(prefix=PID_1) as launched:
        await launched.sync(firmware_only())
        report = await launched.report("Running", "Failed")
        one = inside(launched.process.pid)
        for _ in range(3):
            # Like `kubectl exec`: a process from outside, whose children are PID 1's when it has ended.
            entered = await asyncio.create_subprocess_exec(
                "nsenter", f"--target={one}", "--pid", *shell("(sleep 0.1 & true) & true")
            )
            assert await entered.wait() == 0
        async with asyncio.timeout(DEADLINE):
            while len(Path(f"/proc/{one}/task/{one}/children").read_text().split()) > 1:
                await asyncio.sleep(0.02)
        assert (await launched.report()) == report
        os.kill(one, signal.SIGKILL)


@pytest.mark.root
@pytest.mark.qemu
async def test_as_pid_1_its_death_is_qemus(launch: Launch) -> None:
    async with launch(prefix=PID_1) as launched:
        await launched.sync(firmware_only())
        await launched.report("Running", "Failed")
        one = inside(launched.process.pid)
        (qemu,) = map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        os.kill(one, signal.SIGKILL)
        await launched.wait()
        assert not Path(f"/proc/{qemu}").exists()
