"""Network namespaces that play host, pod, world and guest. This machine's own is never touched."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from qvirt_crds.report import Attachment
from qvirt_netsetup import client, netns, tap
from qvirt_netsetup.dhcp import LeaseEvent, Responder
from qvirt_netsetup.request import NetworkReply, NetworkRequest, Verb

_numbers = itertools.count()

#: Does with the answer what a distribution's script does; classless routes win over the router (RFC 3442).
_UDHCPC_SCRIPT = """#!/bin/sh
env > {log}
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr replace $ip/$mask dev $interface
[ -n "$mtu" ] && ip link set $interface mtu $mtu
if [ -n "$staticroutes" ]; then
  set -- $staticroutes
  while [ -n "$2" ]; do
    if [ $2 = 0.0.0.0 ]; then ip route replace $1 dev $interface; else ip route replace $1 via $2; fi
    shift 2
  done
else
  for gateway in $router; do ip route replace default via $gateway; done
fi
"""


async def run(*argv: str, check: bool = True) -> str:
    """Run a command, return its output; a failure shows what it said."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    text = output.decode(errors="replace")
    if check and process.returncode:
        raise AssertionError(f"{' '.join(argv)}: exit code {process.returncode}\n{text}")
    return text


class Space:
    """A named network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"

    async def __call__(self, command: str, *, check: bool = True) -> str:
        """Run a shell command inside."""
        return await run("ip", "netns", "exec", self.name, "sh", "-ec", command, check=check)

    @contextlib.asynccontextmanager
    async def running(self, *argv: str) -> AsyncIterator[int]:
        """A program that runs inside for as long as the block; yields its process number."""
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self.name, *argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield process.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def eventually(self, command: str, *, seconds: float = 15.0) -> str:
        """Run a command until it succeeds; its last failure fails the test."""
        until = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until:
            with contextlib.suppress(AssertionError):
                return await self(command)
            await asyncio.sleep(0.1)
        return await self(command)

    async def snapshot(self) -> str:
        """Links (MAC, MTU, state), addresses, routes and filters, without what changes by itself."""
        return await self(
            "for l in /sys/class/net/*; do echo ${l##*/} $(cat $l/address $l/mtu $l/flags); done;"
            "ip -o addr | grep -v ' fe80::' | sed 's/ *valid_lft.*//; s/^[0-9]*: *//; s/ nodad//; s/ tentative//' | sort;"
            "ip route; ip -6 route | grep -v ^fe80 | sed 's/ pref medium//'; nft list ruleset;"
            "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.arp_ignore"
        )


MakeSpace = Callable[[str], Awaitable[Space]]


@pytest.fixture
async def make_space() -> AsyncIterator[MakeSpace]:
    """Makes namespaces that the test's end removes."""
    made: list[Space] = []

    async def make(role: str) -> Space:
        space = Space(f"qvtest-{os.getpid()}-{next(_numbers)}-{role}")
        await run("ip", "netns", "add", space.name)
        made.append(space)
        await space("ip link set lo up")
        return space

    try:
        yield make
    finally:
        for space in made:
            await run("ip", "netns", "del", space.name)


async def wire(
    one: Space, two: Space, *, names: tuple[str, str] = ("eth0", "eth0"), mtu: int = 1500
) -> None:
    """A cable between two namespaces, up."""
    await run(
        *("ip", "-n", one.name, "link", "add", names[0], "mtu", str(mtu), "type", "veth"),
        *("peer", "name", names[1], "mtu", str(mtu), "netns", two.name),
    )
    await one(f"ip link set {names[0]} up")
    await two(f"ip link set {names[1]} up")


class Network:
    """`qvirt_netsetup` as the supervisor uses it, for one namespace and one state directory."""

    def __init__(self, space: Space, directory: Path) -> None:
        self.space = space
        self.directory = directory
        self.descriptors: list[int] = []

    async def call(self, verb: Verb, request: NetworkRequest) -> NetworkReply:
        """One request in a child process; descriptors are kept until `close`."""
        filled = msgspec.structs.replace(
            request, verb=verb, netns=self.space.path, state_dir=str(self.directory)
        )
        reply, fds = await client.call(filled)
        self.descriptors += fds
        return reply

    async def up(self, request: NetworkRequest) -> tuple[NetworkReply, tuple[int, ...]]:
        """Set up; an error fails the test. Descriptors in the reply's own numbering."""
        before = len(self.descriptors)
        reply = await self.call("up", request)
        assert reply.error is None, reply.error
        return reply, tuple(self.descriptors[before:])

    def close(self) -> None:
        """Close them: the taps vanish, unless a guest is still plugged in."""
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors.clear()


MakeNetwork = Callable[[Space], Network]


@pytest.fixture
def make_network(tmp_path: Path) -> Iterator[MakeNetwork]:
    """Makes `Network`s whose descriptors the test's end closes."""
    made: list[Network] = []

    def make(space: Space) -> Network:
        made.append(Network(space, tmp_path / "state"))
        return made[-1]

    yield make
    for network in made:
        network.close()


class Guest:
    """A namespace that has, in place of QEMU, a pump between the tap's descriptor and a tap of its own named eth0.

    Both taps have the same 10-byte virtio header, so frames pass as they are. The responder runs as in the launcher.
    """

    def __init__(
        self, space: Space, attachment: Attachment, fds: tuple[int, ...], log: Path
    ) -> None:
        self.space = space
        self.attachment = attachment
        self.log = log
        self.events: list[LeaseEvent] = []
        self._far = os.dup(fds[attachment.tap_fds[0]])
        self._dhcp = os.dup(fds[attachment.dhcp_fd]) if attachment.dhcp_fd is not None else None
        self._stopped = False
        self._near = -1
        self._stop = os.pipe()
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._responder: Responder | None = None

    async def start(self) -> None:
        """Plug in and begin to pump and to answer."""

        async def create() -> int:
            return tap.create("eth0")[0]

        self._near = await netns.run_inside(self.space.path, create)
        await self.space(
            f"ip link set eth0 address {self.attachment.mac} mtu {self.attachment.mtu} up"
        )
        self._thread.start()
        if self._dhcp is not None and self.attachment.lease is not None:
            self._responder = Responder(
                self._dhcp, self.attachment.lease, on_lease=self.events.append
            )
            self._responder.start(asyncio.get_running_loop())

    def _pump(self) -> None:
        ways = {self._near: self._far, self._far: self._near}
        while True:
            ready, _, _ = select.select([*ways, self._stop[0]], [], [])
            if self._stop[0] in ready:
                return
            for fd in ready:
                with contextlib.suppress(OSError):  # a side is down, or full: a wire drops too
                    os.write(ways[fd], os.read(fd, 70000))

    def stop(self) -> None:
        """Unplug. Twice is fine."""
        if self._stopped:
            return
        self._stopped = True
        os.write(self._stop[1], b"x")
        if self._thread.is_alive():
            self._thread.join()
        if self._responder is not None:
            self._responder.close()
        for fd in (self._near, self._far, *self._stop):
            os.close(fd)

    async def lease(self, *options: str) -> dict[str, str]:
        """Run busybox' DHCP client until it has a lease; what its script was told."""
        script = self.log.with_suffix(".sh")
        script.write_text(_UDHCPC_SCRIPT.format(log=self.log))
        script.chmod(0o755)
        words = f"busybox udhcpc -i eth0 -f -q -n -t 5 -T 1 -s {script} {' '.join(options)}"
        await self.space(words)
        lines = self.log.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


MakeGuest = Callable[[Attachment, tuple[int, ...]], Awaitable[Guest]]


@pytest.fixture
async def make_guest(make_space: MakeSpace, tmp_path: Path) -> AsyncIterator[MakeGuest]:
    """Makes guests that the test's end unplugs."""
    made: list[Guest] = []

    async def make(attachment: Attachment, fds: tuple[int, ...]) -> Guest:
        space = await make_space("guest")
        guest = Guest(space, attachment, fds, tmp_path / f"udhcpc-{len(made)}")
        await guest.start()
        made.append(guest)
        return guest

    try:
        yield make
    finally:
        for guest in made:
            guest.stop()
