"""NAT on a bare host: the whole way, in a namespace that plays the host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.netsetup.conftest import MakeGuest, MakeNetwork, MakeSpace, Space, run, wire

from qvirt_netsetup import api
from qvirt_netsetup.errors import NamespaceGone
from qvirt_netsetup.request import InterfaceRequest, NetworkRequest

pytestmark = [pytest.mark.root]


def request(name: str = "vm1", **changes: object) -> NetworkRequest:
    asked = NetworkRequest(
        verb="up",
        state_dir="",
        name=name,
        hostname=name,
        dns=("192.0.2.53", "fd99::53"),
        search=("example.test",),
        interfaces=(InterfaceRequest(name="default", mode="nat"),),
    )
    return msgspec.structs.replace(asked, **changes)


async def host_and_world(make_space: MakeSpace, mtu: int = 1500) -> tuple[Space, Space]:
    """A host with a default route in both families to a world that knows nothing of guests' addresses."""
    host, world = await make_space("host"), await make_space("world")
    await wire(host, world, mtu=mtu)
    await host("ip addr add 192.0.2.2/24 dev eth0; ip addr add fd99::2/64 dev eth0 nodad")
    await host("ip route add default via 192.0.2.1; ip route add default via fd99::1")
    await world("ip addr add 192.0.2.1/24 dev eth0; ip addr add fd99::1/64 dev eth0 nodad")
    return host, world


@contextlib.asynccontextmanager
async def owner() -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that plays the supervisor."""
    process = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_guest_reaches_host_and_world_and_nothing_stays(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    host, world = await host_and_world(make_space)
    before = await host.snapshot()
    network = make_network(host)
    reply, fds = await network.up(request())
    assert not reply.warnings
    (attachment,) = reply.attachments
    assert attachment.lease is not None
    guest = await make_guest(attachment, fds)

    told = await guest.lease()

    address = attachment.lease.address.partition("/")[0]
    assert told["ip"] == address
    assert told["router"] == told["serverid"] == attachment.lease.gateway
    assert told["dns"] == "192.0.2.53"
    assert told["hostname"] == "vm1"
    assert told["search"] == "example.test"
    assert told["mtu"] == "1500"
    assert [(event.address, event.leased) for event in guest.events] == [(address, True)]
    await guest.space(f"ping -c1 -W2 {attachment.lease.gateway}")
    await guest.space("ping -c1 -W2 192.0.2.1")
    await host(f"ping -c1 -W2 {address}")
    # Nobody outside begins a connection to a guest, even one that knows the way.
    await world("ip route add 10.127.0.0/24 via 192.0.2.2")
    await world(f"! ping -c1 -W1 {address}")

    guest.stop()
    network.close()
    down = await network.call("down", request())
    assert down.error is None
    assert await host.snapshot() == before
    assert not list(network.directory.glob("*.json"))


async def test_ipv6_with_a_real_client(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest, tmp_path: Path
) -> None:
    if not Path("/usr/sbin/dhclient").exists():
        pytest.skip("needs dhclient (apt install isc-dhcp-client)")
    host, _ = await host_and_world(make_space)
    network = make_network(host)
    reply, fds = await network.up(request())
    (attachment,) = reply.attachments
    assert attachment.lease is not None
    guest = await make_guest(attachment, fds)
    script, log = tmp_path / "script", tmp_path / "told"
    script.write_text(
        f"#!/bin/sh\nenv >> {log}\n"
        '[ -z "$new_ip6_address" ] || ip addr replace $new_ip6_address/128 dev $interface nodad\n'
    )
    script.chmod(0o755)
    files = f"-sf {script} -lf {tmp_path}/leases -pf {tmp_path}/pid"
    # It waits for a link-local address that has passed duplicate address detection.
    await guest.space.eventually("ip -6 addr show dev eth0 | grep fe80 | grep -qv tentative")
    async with guest.space.running(
        *f"dhclient -6 -d -q {files} eth0".split(),
    ):
        await guest.space.eventually(f"grep -q new_ip6_address {log}")
        told = dict(
            line.split("=", 1) for line in log.read_text().splitlines() if line.startswith("new_")
        )
        address = attachment.lease.address6.partition("/")[0]
        assert told["new_ip6_address"] == address
        assert told["new_dhcp6_name_servers"] == "fd99::53"
        assert told["new_dhcp6_domain_search"] == "example.test."
        # The kernel has default route, on-link prefix and MTU from the advertisement.
        await guest.space.eventually("ip -6 route | grep -q 'default via fe80::1'")
        await guest.space.eventually("ping -c1 -W1 fd99::1")
        await host(f"ping -c1 -W2 {address}")
        assert ("dhcp6", address, True) in [
            (event.protocol, event.address, event.leased) for event in guest.events
        ]


async def test_renewing_and_giving_back(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    host, _ = await host_and_world(make_space)
    network = make_network(host)
    reply, fds = await network.up(request())
    guest = await make_guest(reply.attachments[0], fds)
    # A client that remembers an address of another network is told off, and then takes the right one.
    told = await guest.lease("-r", "10.9.9.9")
    assert told["ip"] + "/24" == reply.attachments[0].lease.address  # type: ignore[union-attr]
    # Stays until it is told to end, and gives its address back then.
    client = "busybox udhcpc -i eth0 -f -n -t 5 -T 1 -R"
    await guest.space(f"timeout -s TERM 2 {client} -s {guest.log.with_suffix('.sh')}", check=False)
    assert [event.leased for event in guest.events] == [True, True, False]


async def test_mtu_of_the_default_route(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    host, _ = await host_and_world(make_space, mtu=1450)
    network = make_network(host)
    reply, fds = await network.up(request())
    assert reply.attachments[0].mtu == 1450
    guest = await make_guest(reply.attachments[0], fds)
    assert (await guest.lease())["mtu"] == "1450"
    await guest.space("ping -c1 -W2 -M do -s 1422 192.0.2.1")
    assert "mtu 1450" in await host("ip link show qvirt0")


async def test_two_guests_and_several_queues(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    host, _ = await host_and_world(make_space)
    before = await host.snapshot()
    network = make_network(host)
    both = (
        InterfaceRequest(name="default", mode="nat"),
        InterfaceRequest(name="fast", mode="nat", queues=4),
    )
    first, fds = await network.up(request(interfaces=both))
    default, fast = first.attachments
    assert len(fds) == first.descriptors == 1 + 4 + 2
    assert fast.tap_fds == (1, 2, 3, 4)
    assert fast.lease is not None
    assert not fast.lease.gateway
    second, more = await network.up(request("vm2"))
    one, two = await make_guest(default, fds), await make_guest(second.attachments[0], more)
    address = (await one.lease())["ip"]
    told = await two.lease()
    # Each is answered by its own responder only.
    assert told["hostname"] == "vm2"
    assert {event.mac for event in two.events} == {second.attachments[0].mac}
    await two.space(f"ping -c1 -W2 {address}")
    # The second guest's questions went no further than the bridge.
    rules = await host("nft list table bridge qvirt")
    assert re.search(r"udp dport 67 counter packets [1-9]", rules)

    one.stop()
    for fd in fds:
        os.close(fd)
        network.descriptors.remove(fd)
    assert (await network.call("down", request())).error is None
    # The other one's network stays.
    await two.space("ping -c1 -W2 192.0.2.1")
    two.stop()
    network.close()
    assert (await network.call("down", request("vm2"))).error is None
    assert await host.snapshot() == before


async def test_a_vm_gets_its_address_again(
    make_space: MakeSpace, make_network: MakeNetwork
) -> None:
    host, _ = await host_and_world(make_space)
    network = make_network(host)
    first, _ = await network.up(request())
    network.close()
    await network.call("down", request())
    await network.up(request("another"))
    again, _ = await network.up(request())
    assert again.attachments == first.attachments


async def test_leftovers_of_a_killed_supervisor(
    make_space: MakeSpace, make_network: MakeNetwork
) -> None:
    host, _ = await host_and_world(make_space)
    before = await host.snapshot()
    network = make_network(host)
    async with owner() as supervisor:
        await network.up(request(owner_pid=supervisor.pid))
        assert (await network.call("clean", request())).cleaned == ()
        supervisor.kill()
        await supervisor.wait()
    # Its QEMU still holds the tap: the descriptors are open.
    reply = await network.call("clean", request())
    assert (reply.error, reply.cleaned) == (None, ("default/vm1",))
    assert await host.snapshot() == before


async def test_the_next_start_cleans_up(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    host, _ = await host_and_world(make_space)
    network = make_network(host)
    async with owner() as supervisor:
        await network.up(request(owner_pid=supervisor.pid))
    reply, _ = await network.up(request("vm2"))
    assert reply.cleaned == ("default/vm1",)
    state = next(network.directory.glob("*.json")).read_text()
    assert "vm2" in state
    assert "vm1" not in state


async def test_killed_in_the_middle(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    host, _ = await host_and_world(make_space)
    before = await host.snapshot()
    network = make_network(host)
    call = asyncio.create_task(network.call("up", request()))
    while not call.done() and not list(network.directory.glob("*.json")):
        await asyncio.sleep(0.005)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    network.close()
    assert (await network.call("down", request())).error is None
    assert await host.snapshot() == before


async def test_running_already(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    host, _ = await host_and_world(make_space)
    network = make_network(host)
    async with owner() as other:
        await network.up(request(owner_pid=other.pid))
        now = await host.snapshot()
        reply = await network.call("up", request())
        assert reply.error is not None
        assert f"process {other.pid}" in reply.error.message
        # Nor can the refused one take the network away from the one that has it.
        assert (await network.call("down", request())).warnings
        assert await host.snapshot() == now


async def test_busy_tap(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    host, _ = await host_and_world(make_space)
    network = make_network(host)
    await network.up(request())
    tap = (await host("ls /sys/class/net | grep ^qv.*[0-9a-f]$ | grep -v qvirt0")).strip()
    network.close()
    await network.call("down", request())
    await host(f"ip tuntap add {tap} mode tap")
    before = await host.snapshot()
    reply = await network.call("up", request())
    assert reply.error is not None
    assert reply.error.reason == "TapBusy"
    assert tap in reply.error.message
    assert await host.snapshot() == before
    assert not list(network.directory.glob("*.json"))


async def test_mac_in_use(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    host, _ = await host_and_world(make_space)
    network = make_network(host)
    same = (InterfaceRequest(name="default", mode="nat", mac="02:AA:00:00:00:01"),)
    await network.up(request(interfaces=same))
    reply = await network.call("up", request("vm2", interfaces=same))
    assert reply.error is not None
    assert "default/vm1" in reply.error.message


async def test_without_the_right(make_space: MakeSpace, tmp_path: Path) -> None:
    host, _ = await host_and_world(make_space)
    asked = msgspec.structs.replace(request(), state_dir=str(tmp_path / "state"))
    (tmp_path / "ask.py").write_text(
        "import asyncio, sys, msgspec\n"
        "from qvirt_netsetup import client, request\n"
        "asked = msgspec.json.decode(sys.argv[1], type=request.NetworkRequest)\n"
        "print(asyncio.run(client.call(asked))[0].error.message)\n"
    )
    # Root, but for the capabilities of an ordinary user.
    said = await host(
        f"setpriv --bounding-set -all --inh-caps -all {sys.executable} {tmp_path}/ask.py '{msgspec.json.encode(asked).decode()}'"
    )
    assert "not permitted" in said
    assert "start as root" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "state").glob("*.json"))


async def test_a_host_that_drops_forwarded_packets_is_pointed_out(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    host, _ = await host_and_world(make_space)
    await host(
        "nft add table ip filter; nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'"
    )
    reply, fds = await make_network(host).up(request())
    (warning,) = reply.warnings
    assert "ip filter FORWARD" in warning
    guest = await make_guest(reply.attachments[0], fds)
    await guest.lease()
    await guest.space("! ping -c1 -W1 192.0.2.1")
    # The remedy that the warning gives is the cure.
    for remedy in warning.partition("e.g. ")[2].split("; "):
        await host(remedy)
    await guest.space("ping -c1 -W2 192.0.2.1")


async def test_no_candidate_overlaps(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    host, _ = await host_and_world(make_space)
    await host("ip route add 10.0.0.0/8 via 192.0.2.1")
    reply, _ = await make_network(host).up(request())
    assert reply.attachments[0].lease is not None
    assert reply.attachments[0].lease.address.startswith("172.29.0.")


async def test_host_without_ipv6(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    host, _ = await host_and_world(make_space)
    await host("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
    before = await host.snapshot()
    network = make_network(host)
    reply, _ = await network.up(request())
    assert reply.attachments[0].lease is not None
    assert not reply.attachments[0].lease.address6
    network.close()
    assert (await network.call("down", request())).error is None
    assert await host.snapshot() == before


async def test_settings_of_a_host_that_forwards_already(
    make_space: MakeSpace, make_network: MakeNetwork
) -> None:
    host, _ = await host_and_world(make_space)
    await host("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.eth0.accept_ra=1")
    show = "sysctl -a 2>/dev/null | grep -E 'forwarding|accept_ra |ip_forward |accept_redirects' | grep -v qvirt0"
    before = await host(show)
    network = make_network(host)
    await network.up(request())
    # A router of the host's own default route stays believed.
    assert "accept_ra = 2" in await host("sysctl net.ipv6.conf.eth0.accept_ra")
    network.close()
    await network.call("down", request())
    assert await host(show) == before


async def test_in_process(make_space: MakeSpace, tmp_path: Path) -> None:
    host, _ = await host_and_world(make_space)
    before = await host.snapshot()
    home = os.stat("/proc/self/ns/net").st_ino
    asked = msgspec.structs.replace(
        request(), netns=host.path, state_dir=str(tmp_path), owner_pid=os.getpid()
    )
    outcome = await api.setup(asked)
    assert len(outcome.descriptors) == outcome.reply.descriptors == 2
    assert "qvirt0" in await host("ip link")
    for fd in outcome.descriptors:
        os.close(fd)
    await api.teardown(asked)
    assert await host.snapshot() == before
    assert os.stat("/proc/self/ns/net").st_ino == home
    assert "qvirt0" not in await run("ip", "link")


async def test_namespace_that_is_gone(tmp_path: Path) -> None:
    asked = msgspec.structs.replace(
        request(), netns="/proc/999999999/ns/net", state_dir=str(tmp_path)
    )
    with pytest.raises(NamespaceGone, match="999999999"):
        await api.setup(asked)
