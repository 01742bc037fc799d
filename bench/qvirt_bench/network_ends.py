"""Guests on a pod's network: by a launcher with netsetup's bridge or masquerade, and by an administrator's own commands."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from qvirt_bench import byhand, pod, shell, smaps, spaces
from qvirt_crds import names
from qvirt_crds.report import Accel
from qvirt_netsetup import api
from qvirt_netsetup.request import InterfaceRequest, Mode, NetworkRequest

#: Ports of the guest: an endless stream, a bottomless sink, and an echo that the demo guest has by itself.
SOURCE: Final = 5001
SINK: Final = 5002
ECHO: Final = 7
_BLOCK: Final = "64k"
_SERVERS: Final = (
    f"nc -ll -p {SOURCE} -e dd if=/dev/zero bs={_BLOCK} 2>/dev/null &",
    f"nc -ll -p {SINK} -e dd of=/dev/null bs={_BLOCK} 2>/dev/null &",
)
#: Of virtio-net, by bit number (virtio 1.2, 5.1.3): what saves work for long streams.
_OFFLOADS: Final = {
    0: "CSUM",
    1: "GUEST_CSUM",
    7: "GUEST_TSO4",
    8: "GUEST_TSO6",
    11: "HOST_TSO4",
    12: "HOST_TSO6",
    15: "MRG_RXBUF",
}
_HAND_MAC: Final = "02:00:00:00:77:03"
_FEATURES: Final = "cat /sys/class/net/eth0/device/features"


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """A guest that serves streams and echoes at its pod's address."""

    pair: spaces.Pair
    qemu: int
    #: Names of the offloads that its card and driver agreed on.
    offloads: tuple[str, ...]


@contextlib.asynccontextmanager
async def by_launcher(root: Path, mode: Mode, accel: Accel) -> AsyncIterator[Guest]:
    """The launcher in its pod, its network made by netsetup as virt-handler has it made."""
    async with contextlib.AsyncExitStack() as stack:
        pair = await stack.enter_async_context(spaces.pair(mode))
        state = stack.enter_context(tempfile.TemporaryDirectory(prefix="qvirt-bench-"))
        one = await stack.enter_async_context(pod.started(root, netns=pair.pod_path))
        await one.connect()
        request = NetworkRequest(
            verb="up",
            state_dir=f"{state}/net",
            name="bench",
            namespace="bench",
            owner_pid=one.launcher,
            owner_uid=names.RUNTIME_UID,
            netns=pair.pod_path,
            dns=(spaces.WORLD,),
            interfaces=(InterfaceRequest(name="default", mode=mode, link="eth0", vhost=True),),
        )
        outcome = await api.setup(request)
        try:
            await one.sync(
                pod.guest(accel=accel, attachments=outcome.reply.attachments), outcome.descriptors
            )
        finally:
            for fd in outcome.descriptors:
                os.close(fd)
        await one.running()
        inside = await stack.enter_async_context(shell.opened(one.run_dir / names.CONSOLE_SOCKET))
        yield await _serving(inside, pair, smaps.qemu_of(one.process.pid))


@contextlib.asynccontextmanager
async def by_hand(root: Path, accel: Accel) -> AsyncIterator[Guest]:
    """A tap and a bridge made with ip(8), QEMU started with what an administrator would write."""
    async with contextlib.AsyncExitStack() as stack:
        pair = await stack.enter_async_context(spaces.pair("byhand"))
        for command in (
            "ip addr flush dev eth0",
            "ip link add br0 type bridge forward_delay 0",
            "ip link set eth0 master br0",
            "ip tuntap add tap0 mode tap vnet_hdr",
            "ip link set tap0 master br0 up",
            "ip link set br0 up",
        ):
            await pair.in_pod(*command.split())
        machine = await stack.enter_async_context(
            byhand.launched(
                *(root, _argv(accel), _overlay),
                netns=pair.pod_path,
                user="0:0",
                devices=("net/tun", "vhost-net"),
            )
        )
        await machine.run()
        inside = await stack.enter_async_context(
            shell.opened(machine.run_dir / names.SERIAL_SOCKET)
        )
        await inside.run(f"ip addr add {spaces.POD}/{spaces.PREFIX} dev eth0")
        yield await _serving(inside, pair, machine.qemu)


def _overlay(run_dir: Path) -> None:
    byhand.overlay(run_dir, "root", pod.DEMO_DISK)


def _argv(accel: Accel) -> tuple[str, ...]:
    vhost = ",vhost=on" if accel == "kvm" and os.path.exists("/dev/vhost-net") else ""
    return (
        *byhand.board(accel),
        *("-drive", "file=/run/qvirt/disks/root.qcow2,format=qcow2,if=virtio,cache=none"),
        *("-netdev", f"tap,id=net0,ifname=tap0,script=no,downscript=no{vhost}"),
        *("-device", f"virtio-net-pci,netdev=net0,mac={_HAND_MAC}"),
    )


async def _serving(inside: shell.Shell, pair: spaces.Pair, qemu: int) -> Guest:
    for server in _SERVERS:
        await inside.run(f"{{ {server} }}")
    bits = (await inside.run(_FEATURES)).split()[-1]
    offloads = tuple(name for bit, name in _OFFLOADS.items() if bits[bit : bit + 1] == "1")
    return Guest(pair=pair, qemu=qemu, offloads=offloads)
