"""NAT on a bare host: the whole way, in a namespace that plays the host."""

from __future__ import annotations

import msgspec
import pytest
from tests.netsetup.conftest import (
    MakeGuest,
    MakeNetwork,
    MakeSpace,
    Space,
    wire,
)

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


async def test_guest_reaches_host_and_world_and_nothing_stays(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    host, _ = await host_and_world(make_space)
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
    # IPv6 by hand: the wire and the NAT are what is tested here.
    await guest.space(f"ip addr add {attachment.lease.address6} dev eth0 nodad")
    await guest.space("ip -6 route add default via fe80::1 dev eth0; ping -c1 -W2 fd99::1")

    guest.stop()
    network.close()
    down = await network.call("down", request())
    assert down.error is None
    assert await host.snapshot() == before
    assert not list(network.directory.glob("*.json"))
