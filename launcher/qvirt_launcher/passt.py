"""passt: user networking without privileges, faster than QEMU's own. One process a network card, ending with its guest.

Facts: passt(1), of 2023-03 and later.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from qvirt_crds.report import Attachment
from qvirt_launcher import native
from qvirt_launcher.account import Account
from qvirt_launcher.errors import HostError

_DEADLINE: Final = 10.0
_PAUSE: Final = 0.02
#: For what it said to arrive after its exit.
_LAST_WORDS: Final = 1.0


@contextlib.contextmanager
def folder(name: str, account: Account) -> Iterator[Path]:
    """Where the sockets of one VM (``namespace/name``) are.

    Below /tmp, because Debian's AppArmor profile lets passt make its socket there but not in /run/user.

    One place for each VM, so that the next start removes what a killed one left.
    """
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    path = Path(f"/tmp/qvirt-passt-{os.geteuid()}-{digest}")
    try:
        if os.path.lexists(path):
            shutil.rmtree(path)
        path.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(path, account.uid, account.gid)
    except OSError as error:
        raise HostError(f"passt: {path}: {error.strerror}; remove it") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def arguments(socket: Path, attachment: Attachment) -> tuple[str, ...]:
    """passt's command line: in the foreground, ending with its one guest."""
    argv = ["passt", "-f", "-1", "-q", "-e", "-s", str(socket), "-m", str(attachment.mtu)]
    for option, protocol in (("-t", "tcp"), ("-u", "udp")):
        by_address: dict[str, list[str]] = {}
        for port in attachment.publish:
            if port.protocol == protocol:
                ports = by_address.setdefault(port.host_address, [])
                ports.append(f"{port.host_port}:{port.guest_port}")
        for address, ports in by_address.items():
            argv += [option, f"{address}/{','.join(ports)}"]
    return tuple(argv)


@contextlib.asynccontextmanager
async def serving(socket: Path, attachment: Attachment, account: Account) -> AsyncIterator[None]:
    """A passt that waits for QEMU on the socket.

    :raise HostError: it doesn't start, e.g. as a port is taken.
    """
    as_user = {"user": account.uid, "group": account.gid, "extra_groups": []}
    process = await asyncio.create_subprocess_exec(
        *arguments(socket, attachment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=native.dying_with_parent(),
        **(as_user if os.geteuid() == 0 else {}),  # type: ignore[arg-type]
    )
    assert process.stderr is not None
    said = bytearray()
    reader = asyncio.create_task(_collect(process.stderr, said), name="passt's messages")
    try:
        if not await _is_listening(process, socket):
            await asyncio.wait({reader}, timeout=_LAST_WORDS)
            raise HostError(f"passt: doesn't start: {_cause(process, said)}; use --network user")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_DEADLINE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        reader.cancel()
        await asyncio.wait({reader})


async def _collect(stream: asyncio.StreamReader, said: bytearray) -> None:
    while chunk := await stream.read(4096):
        said += chunk
        del said[:-4096]


def _is_socket(path: Path) -> bool:
    return path.is_socket()


async def _is_listening(process: asyncio.subprocess.Process, socket: Path) -> bool:
    """passt says nothing when it is ready; its socket is there then."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DEADLINE):
            while process.returncode is None:
                if _is_socket(socket):
                    return True
                await asyncio.sleep(_PAUSE)
    return False


def _cause(process: asyncio.subprocess.Process, said: bytearray) -> str:
    # passt complains about a missing syslog at each message.
    lines = said.decode(errors="replace").splitlines()
    words = [line for line in lines if line.strip() and not line.startswith("Failed to send")]
    if words:
        return words[-1]
    if process.returncode is None:
        return f"it makes no socket within {_DEADLINE:g} s"
    return f"it ended with code {process.returncode}"
