"""The serial console's way into the pod's log: the launcher's pipe, and what the sidecar runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.launcher.conftest import Launch, firmware_only

from qvirt_crds import pod_layout
from qvirt_launcher.console_pipe import KEPT, ConsolePipe
from qvirt_launcher.errors import HostError

DEADLINE = 30.0


@contextlib.asynccontextmanager
async def sidecar(path: Path, program: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command of the pod, with this machine's paths."""
    (_, *rest) = pod_layout.console_log_command()
    argv = [word.replace(pod_layout.CONSOLE_PIPE, str(path)) for word in rest]
    process = await asyncio.create_subprocess_exec(
        program, *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def all_of(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE):
        said = await process.stdout.read()
        assert await process.wait() == 0
    return said


async def some_of(process: asyncio.subprocess.Process, wanted: bytes) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE):
        await process.stdout.readuntil(wanted)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "serial0"


async def test_from_the_first_word_to_the_last(path: Path, holder_program: Path) -> None:
    async with sidecar(path, holder_program) as process:
        await asyncio.sleep(0.2)
        pipe = ConsolePipe(str(path))
        pipe.write(b"hello\n")
        await some_of(process, b"hello\n")
        # The kubelet asks the whole pod to end: the guest has something to say yet.
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        pipe.write(b"goodbye\n")
        pipe.close()
        assert await all_of(process) == b"goodbye\n"


async def test_a_sidecar_that_comes_late_hears_what_was_said(
    path: Path, holder_program: Path
) -> None:
    pipe = ConsolePipe(str(path))
    for number in range(100):
        pipe.write(f"line {number}\n".encode())
    async with sidecar(path, holder_program) as process:
        await some_of(process, b"line 99\n")
        pipe.close()
        assert await all_of(process) == b""


async def test_a_sidecar_that_comes_after_the_launchers_end_ends_as_well(
    path: Path, holder_program: Path
) -> None:
    pipe = ConsolePipe(str(path))
    pipe.write(b"for nobody\n")
    pipe.close()
    async with sidecar(path, holder_program) as process:
        assert await all_of(process) == b""


async def test_a_reader_that_is_too_slow_is_told_what_it_missed(
    path: Path, holder_program: Path
) -> None:
    pipe = ConsolePipe(str(path))
    chunk = b"x" * 4095 + b"\n"
    count = 4 * KEPT // len(chunk)
    for _ in range(count):
        pipe.write(chunk)
    async with sidecar(path, holder_program) as process:
        assert process.stdout is not None
        await some_of(process, b"x\n")
        await asyncio.sleep(0.5)
        reading = asyncio.create_task(process.stdout.read(), name="read")
        await asyncio.sleep(0.5)
        pipe.write(b"again\n")
        pipe.close()
        said = await reading
    found = re.search(rb"\n\[(\d+) bytes of the console were lost here\]\nagain\n$", said)
    assert found
    kept = said.count(b"x" * 4095) + 1
    assert int(found[1]) == (count - kept) * len(chunk)


def test_a_launcher_that_is_restarted_in_its_pod(path: Path) -> None:
    for _ in range(2):
        pipe = ConsolePipe(str(path))
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        pipe.close()
        pipe.close()
        pipe.write(b"nobody hears it\n")


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="can't be made: No such file"):
        ConsolePipe(str(tmp_path / "none" / "serial0"))


@pytest.mark.qemu
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
async def test_a_guest(
    launch: Launch, short_dir: Path, holder_program: Path, ending: signal.Signals
) -> None:
    where = short_dir / "console"
    where.mkdir(mode=0o777)
    where.chmod(0o777)
    # As a pod's: made by the user that the launcher is.
    path = where / "serial0"
    async with (
        sidecar(path, holder_program) as process,
        launch("--console-pipe", str(path)) as launched,
    ):
        await launched.sync(firmware_only(terminationGracePeriodSeconds=1))
        await launched.report("Running")
        await some_of(process, b"SeaBIOS")
        launched.process.send_signal(ending)
        await all_of(process)
