"""A private network in a pod; its ports reach the guest."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator

import pytest
from tests.netsetup.conftest import Guest, MakeGuest, MakeNetwork, MakeSpace
from tests.netsetup.test_takeover import POD_MAC, bridged_pod

from qvirt_crds.devices import Port
from qvirt_netsetup.request import InterfaceRequest, NetworkRequest

pytestmark = [pytest.mark.root]


#: busybox' wget crashes on Debian when it looks names up (it is linked statically).
_WGET = (
    f"{sys.executable} -c 'import sys, urllib.request as r; "
    "print(r.urlopen(sys.argv[1], timeout=3).read().decode())' "
)


def request(*ports: Port, network: str = "") -> NetworkRequest:
    return NetworkRequest(
        verb="up",
        state_dir="",
        name="vm1",
        dns=("10.96.0.10", "fd88::53"),
        interfaces=(
            InterfaceRequest(name="default", mode="masquerade", ports=ports, network=network),
        ),
    )


@contextlib.asynccontextmanager
async def serving(guest: Guest, *ports: int) -> AsyncIterator[None]:
    """Web servers in the guest."""
    root = guest.log.parent
    (root / "index.html").write_text("from the guest")
    async with contextlib.AsyncExitStack() as stack:
        for port in ports:
            words = ("busybox", "httpd", "-f", "-p", f"[::]:{port}", "-h", str(root))
            await stack.enter_async_context(guest.space.running(*words))
            await guest.space.eventually(f"{_WGET} http://127.0.0.1:{port}/")
        yield


async def test_all_ports(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    node, pod = await bridged_pod(make_space)
    before = await pod.snapshot()
    network = make_network(pod)
    reply, fds = await network.up(request())
    (attachment,) = reply.attachments
    assert attachment.mac == POD_MAC
    assert attachment.lease is not None
    assert attachment.lease.address == "10.0.2.2/24"
    assert attachment.lease.address6 == "fd10:0:2::2/120"
    guest = await make_guest(attachment, fds)
    told = await guest.lease()
    assert (told["ip"], told["router"]) == ("10.0.2.2", "10.0.2.1")
    # The kernel took the default route from our advertisement; the address is the DHCPv6 client's business.
    await guest.space.eventually("ip -6 route | grep -q 'default via fe80::1'")
    await guest.space("ip addr add fd10:0:2::2/120 dev eth0 nodad")

    await guest.space("ping -c1 -W2 10.88.0.1; ping -c1 -W2 fd88::1")
    async with serving(guest, 80):
        assert "from the guest" in await node(_WGET + "http://10.88.0.5/")
        assert "from the guest" in await node(_WGET + "'http://[fd88::5]/'")
        assert "from the guest" in await pod(_WGET + "http://127.0.0.1/")
    await node("ping -c1 -W2 10.88.0.5")
    # The pod's own interface is as it was.
    assert "10.88.0.5/24" in await pod("ip addr show dev eth0")

    guest.stop()
    network.close()
    assert (await network.call("down", request())).error is None
    assert await pod.snapshot() == before


async def test_only_the_listed_ports(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    node, pod = await bridged_pod(make_space)
    network = make_network(pod)
    reply, fds = await network.up(request(Port(port=80), Port(port=53, protocol="UDP")))
    guest = await make_guest(reply.attachments[0], fds)
    await guest.lease()
    async with serving(guest, 80, 8080):
        assert "from the guest" in await node(_WGET + "http://10.88.0.5/")
        assert "from the guest" in await pod(_WGET + "http://127.0.0.1/")
        # The pod itself answers for the rest, and nothing listens there.
        assert "refused" in await node(_WGET + "http://10.88.0.5:8080/", check=False)
        # From inside the private network every port is there.
        assert "from the guest" in await pod(_WGET + "http://10.0.2.2:8080/")


async def test_networks_must_not_overlap(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    _, pod = await bridged_pod(make_space)
    before = await pod.snapshot()
    reply = await make_network(pod).call("up", request(network="10.88.0.0/16"))
    assert reply.error is not None
    assert "10.88.0.5/24" in reply.error.message
    assert await pod.snapshot() == before


async def test_the_gateways_mac_is_refused(
    make_space: MakeSpace, make_network: MakeNetwork
) -> None:
    _, pod = await bridged_pod(make_space)
    asked = NetworkRequest(
        verb="up",
        state_dir="",
        name="vm1",
        interfaces=(InterfaceRequest(name="default", mode="masquerade", mac="02:00:00:00:00:00"),),
    )
    reply = await make_network(pod).call("up", asked)
    assert reply.error is not None
    assert reply.error.reason == "NetworkRequestRefused"
