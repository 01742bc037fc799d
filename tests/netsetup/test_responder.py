"""The responder on its descriptor, and the filter in front of it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import pytest
from msgspec.structs import replace
from tests.netsetup.conftest import MakeSpace, run
from tests.netsetup.test_dhcp4 import LEASE, REQUESTED, ask, framed
from tests.netsetup.test_dhcp6 import solicitation

from qvirt_netsetup import dhcp4, frames, netns, packet, tap
from qvirt_netsetup.dhcp import LeaseEvent, Responder


async def test_answers_and_tells() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    events: list[LeaseEvent] = []
    responder = Responder(theirs.detach(), LEASE, on_lease=events.append)
    responder.start(asyncio.get_running_loop())
    with ours:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        for junk in (b"", b"junk", bytes(2000), framed(ask(dhcp4.DISCOVER))[:-200]):
            await loop.sock_sendall(ours, junk)
        await loop.sock_sendall(ours, framed(ask(dhcp4.REQUEST, REQUESTED)))
        async with asyncio.timeout(5):
            datagram = frames.parse(await loop.sock_recv(ours, 2000))
        assert datagram is not None
        reply = dhcp4.decode(datagram.payload)
        assert reply is not None
        assert reply.type == dhcp4.ACK
        assert [(event.address, event.leased) for event in events] == [("10.127.0.7", True)]
    responder.close()
    responder.close()


async def test_survives_the_other_sides_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    responder = Responder(theirs.detach(), replace(LEASE, address6="fd10:0:2::2/120"))
    responder.start(asyncio.get_running_loop())
    ours.send(framed(ask(dhcp4.DISCOVER)))
    ours.close()
    await asyncio.sleep(0.05)
    responder.close()


async def test_stays_small() -> None:
    """The launcher lives as long as the VM: neither netlink nor rendering comes with the responder."""
    said = await run(
        sys.executable,
        "-c",
        "import qvirt_netsetup.dhcp, sys; print([m for m in sys.modules if m.startswith(('pyroute2', 'jinja2', 'yaml', 'qvirt_netsetup.apply'))])",
    )
    assert said.strip() == "[]"


def udp4(port: int) -> bytes:
    source, target = bytes([10, 0, 0, 1]), b"\xff" * 4
    body = frames.udp(source, target, 68, port, b"payload")
    return frames.ethernet4(frames.BROADCAST, source, target, body)


def udp6(port: int) -> bytes:
    source, target = frames.link_local(b"\2\0\0\0\0\1"), b"\xff\2" + bytes(13) + b"\1"
    body = frames.udp(source, target, 546, port, b"payload")
    return frames.ethernet6(b"33\0\0\0\1", source, target, frames.UDP, body)


def fragment() -> bytes:
    frame = bytearray(udp4(67))
    frame[20:22] = b"\x00\x01"
    return bytes(frame)


def longer_header() -> bytes:
    """An IP header with options: the port lies further behind."""
    frame = udp4(67)
    return frame[:14] + bytes([0x46]) + frame[15:34] + bytes(4) + frame[34:]


def advertisement() -> bytes:
    frame = bytearray(solicitation())
    frame[54] = 134
    return bytes(frame)


@pytest.mark.root
async def test_the_filter_lets_through_only_questions(make_space: MakeSpace) -> None:
    space = await make_space("filter")
    passing = {
        "dhcp": udp4(67),
        "dhcp with ip options": longer_header(),
        "dhcpv6": udp6(547),
        "router solicitation": solicitation(),
    }
    stopped = {
        "dns": udp4(53),
        "dhcp answer": udp4(68),
        "fragment": fragment(),
        "dhcpv6 answer": udp6(546),
        "router advertisement": advertisement(),
        "arp": frames.BROADCAST + b"\2\0\0\0\0\1\x08\x06" + bytes(28),
        "tcp": udp4(67)[:23] + b"\x06" + udp4(67)[24:],
    }

    async def plug() -> tuple[int, int]:
        (fd,) = tap.create("t0")
        await run("ip", "-n", space.name, "link", "set", "t0", "up")
        return fd, packet.open_dhcp("t0")

    tap_fd, dhcp_fd = await netns.run_inside(space.path, plug)
    with socket.socket(fileno=dhcp_fd) as listener:
        for name, frame in {**stopped, **passing}.items():
            os.write(tap_fd, bytes(10) + frame)  # a virtio header without offloads comes first
            got = True
            try:
                heard = listener.recv(2000)
                assert heard.startswith(frame), name
            except BlockingIOError:
                got = False
            assert got == (name in passing), name
    os.close(tap_fd)
