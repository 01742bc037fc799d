"""The launcher's sockets against clients that are wrong, hostile, or gone, and the descriptors that come with vm-sync."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Mapping

import msgspec
import pytest
from tests.launcher.conftest import DEADLINE, Launch, Launched, firmware_only

from qvirt_crds.report import Attachment, Lease, VmReport
from qvirt_crds.sync import SyncArguments
from qvirt_netsetup import dhcp4, frames
from qvirt_qmp.errors import CommandFailed, QmpError

pytestmark = pytest.mark.qemu

MAC = "02:00:00:00:00:07"
LEASE = Lease(
    mac=MAC, hostname="tiny", address="10.0.2.2/24", gateway="10.0.2.1", server="10.0.2.1"
)


def sync(**more: object) -> dict[str, object]:
    arguments = msgspec.to_builtins(SyncArguments(vmi=firmware_only(), accel="tcg"))
    return {**arguments, **more}


async def test_a_second_sync_of_the_same_guest_changes_nothing(launch: Launch) -> None:
    async with launch() as launched:
        monitor = await launched.sync(firmware_only())
        before = await launched.report("Running", "Failed")
        again = msgspec.convert(await monitor.execute("vm-sync", sync()), VmReport)
        assert again == before


@pytest.mark.parametrize("change", [{"uid": "two"}, {"name": "other"}, {"namespace": "other"}])
async def test_a_second_guest_is_refused(launch: Launch, change: Mapping[str, str]) -> None:
    async with launch() as launched:
        monitor = await launched.sync(firmware_only())
        other = sync()
        vmi = other["vmi"]
        assert isinstance(vmi, dict)
        vmi["metadata"] = {**vmi["metadata"], **change}
        with pytest.raises(CommandFailed, match=r"serves .*tiny .*no second guest"):
            await monitor.execute("vm-sync", other)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("vm-sync", {}, "vmi"),
        ("vm-sync", {"vmi": {}}, "vmi"),
        ("vm-sync", sync(colour="red"), "colour"),
        ("vm-sync", sync(accel="fast"), "accel"),
        (
            "vm-sync",
            sync(attachments=[{"interface": "a", "backend": "tap", "mac": MAC, "tapFds": [0]}]),
            "descriptors",
        ),
        ("vm-stop", {"gracePeriodSeconds": -1}, "negative"),
        ("vm-stop", {"gracePeriodSeconds": "soon"}, "gracePeriodSeconds"),
        ("vm-query", {"x": 1}, "x"),
        ("vm-recorder", {"since": "then"}, "since"),
        ("query-status", {}, "QEMU does not run"),
        ("vm-fly", {}, "QEMU does not run"),
    ],
)
async def test_wrong_commands_are_answered_and_change_nothing(
    launch: Launch, command: str, arguments: dict[str, object], message: str
) -> None:
    async with launch() as launched:
        monitor = await launched.connect()
        with pytest.raises(QmpError, match=message):
            await monitor.execute(command, arguments)
        assert (await launched.report()).phase == "Waiting"


async def test_a_descriptor_named_twice_is_refused(launch: Launch) -> None:
    tap = {"interface": "a", "backend": "tap", "mac": MAC, "tapFds": [0, 0]}
    reading, writing = os.pipe()
    try:
        async with launch() as launched:
            monitor = await launched.connect()
            with pytest.raises(CommandFailed, match="descriptors"):
                await monitor.execute("vm-sync", sync(attachments=[tap]), fds=(reading,))
            assert (await launched.report()).phase == "Waiting"
    finally:
        os.close(reading)
        os.close(writing)


JUNK = [
    b"",
    b"\0" * 100_000,
    b"\xff\xfe{}[]",
    b"{" * 100_000,
    b'{"execute": "vm-query"}' * 1000,
    b'{"execute": "qmp_capabilities"}{"execute": ["vm-stop"], "arguments": 3}',
    b"GET / HTTP/1.1\r\n\r\n",
    b"x" * (3 << 20),
]


@pytest.mark.parametrize("name", ["launcher.sock", "qmp.sock", "console.sock"])
async def test_junk_does_no_harm(launch: Launch, name: str) -> None:
    async with launch() as launched:
        await launched.sync(firmware_only())
        await launched.report("Running", "Failed")
        for junk in JUNK:
            await throw(launched, name, junk)
        assert (await launched.report()).phase == "Running"
        await launched.monitors[0].execute("vm-stop", {"gracePeriodSeconds": 0})
        assert await launched.wait() == 0
        assert "Traceback" not in launched.text


async def throw(launched: Launched, name: str, junk: bytes) -> None:
    """Send it, and leave without reading."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        sock.connect(str(launched.run_dir / name))
        try:
            async with asyncio.timeout(1):
                await loop.sock_sendall(sock, junk)
        except (OSError, TimeoutError):
            return


async def test_viewers_of_the_console_come_and_go(launch: Launch) -> None:
    """All see what the guest says, also those who come late; what they type arrives."""
    async with launch("--console-log", "/dev/null") as launched:
        await launched.sync(firmware_only())
        await launched.report("Running", "Failed")
        early = await see(launched, b"SeaBIOS")
        late = await see(launched, b"SeaBIOS")
        assert early
        assert late


async def see(launched: Launched, text: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(launched.run_dir / "console.sock"))
    try:
        async with asyncio.timeout(DEADLINE):
            return await reader.readuntil(text)
    finally:
        writer.close()
        await writer.wait_closed()


def frame(kind: int) -> bytes:
    """A DHCP message of the guest, as it comes out of a tap."""
    options = {dhcp4.TYPE: bytes([kind]), dhcp4.MAX_SIZE: struct.pack("!H", 1500)}
    if kind == dhcp4.REQUEST:
        options[dhcp4.REQUESTED] = socket.inet_aton("10.0.2.2")
    message = dhcp4.Message(1, 0x1234, options, chaddr=frames.mac_bytes(MAC))
    body = frames.udp(bytes(4), b"\xff" * 4, 68, 67, dhcp4.encode(message))
    out = frames.ethernet4(frames.BROADCAST, bytes(4), b"\xff" * 4, body)
    return out[:6] + frames.mac_bytes(MAC) + out[12:]


async def test_dhcp_is_answered_on_the_descriptor_that_came_along(launch: Launch) -> None:
    """A pair of sockets in place of a packet socket on a tap: the guest's side is ours."""
    attachment = Attachment(interface="default", backend="user", mac=MAC, dhcp_fd=0, lease=LEASE)
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours:
        async with launch() as launched:
            with theirs:
                await launched.sync(
                    firmware_only(interfaces=True),
                    attachments=(attachment,),
                    fds=(theirs.fileno(),),
                )
            report = await launched.report("Running", "Failed")
            assert [(i.address, i.leased) for i in report.interfaces] == [("10.0.2.2", False)]
            async with asyncio.timeout(DEADLINE):
                await loop.sock_sendall(ours, frame(dhcp4.DISCOVER))
                assert frames.parse(await loop.sock_recv(ours, 2000)) is not None
                await loop.sock_sendall(ours, frame(dhcp4.REQUEST))
                await loop.sock_recv(ours, 2000)
                while not (await launched.report()).interfaces[0].leased:
                    await asyncio.sleep(0.02)
