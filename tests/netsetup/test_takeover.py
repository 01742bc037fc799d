"""The guest takes over a pod's interface: a bridge and a veth pair play the CNI plugin."""

from __future__ import annotations

import msgspec
import pytest
from tests.netsetup.conftest import MakeGuest, MakeNetwork, MakeSpace, Space, run, wire

from qvirt_netsetup.request import InterfaceRequest, NetworkRequest

pytestmark = [pytest.mark.root]

POD_MAC = "02:aa:00:00:00:05"


def request(**changes: object) -> NetworkRequest:
    asked = NetworkRequest(
        verb="up",
        state_dir="",
        namespace="shop",
        name="vm1",
        hostname="vm1",
        dns=("10.96.0.10",),
        search=("shop.svc.cluster.local", "svc.cluster.local"),
        interfaces=(InterfaceRequest(name="default", mode="takeover"),),
    )
    return msgspec.structs.replace(asked, **changes)


async def bridged_pod(make_space: MakeSpace, mtu: int = 1500) -> tuple[Space, Space]:
    """As the CNI bridge plugin with hairpinMode does it: broadcasts come back to the pod that sent them."""
    node, pod = await make_space("node"), await make_space("pod")
    await node("ip link add cni0 type bridge forward_delay 0; ip link set cni0 up")
    await node("ip addr add 10.88.0.1/24 dev cni0; ip addr add fd88::1/64 dev cni0 nodad")
    await wire(node, pod, names=("veth5", "eth0"), mtu=mtu)
    await node("ip link set veth5 master cni0; bridge link set dev veth5 hairpin on")
    await pod(f"ip link set eth0 down; ip link set eth0 address {POD_MAC}; ip link set eth0 up")
    await pod("ip addr add 10.88.0.5/24 dev eth0; ip addr add fd88::5/64 dev eth0 nodad")
    await pod("ip route add default via 10.88.0.1; ip -6 route add default via fd88::1")
    return node, pod


async def routed_pod(make_space: MakeSpace, mtu: int) -> tuple[Space, Space]:
    """As Calico does it: a /32, and a gateway that exists only as the node's answer to ARP."""
    node, pod = await make_space("node"), await make_space("pod")
    await wire(node, pod, names=("cali5", "eth0"), mtu=mtu)
    await node("sysctl -qw net.ipv4.conf.cali5.proxy_arp=1 net.ipv4.ip_forward=1")
    await node("ip addr add 198.51.100.1/32 dev lo; ip addr add fe80::ee dev cali5 nodad")
    await node("ip route add 10.99.0.7/32 dev cali5; ip route add default dev lo")
    await node("sysctl -qw net.ipv4.neigh.cali5.proxy_delay=0")
    await pod("ip addr add 10.99.0.7/32 dev eth0; ip route add 169.254.1.1 dev eth0 scope link")
    await pod("ip route add default via 169.254.1.1")
    return node, pod


async def test_guest_has_the_pods_address_and_the_pod_gets_it_back(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    node, pod = await bridged_pod(make_space)
    before = await pod.snapshot()
    network = make_network(pod)
    reply, fds = await network.up(request())
    (attachment,) = reply.attachments
    assert attachment.mac == POD_MAC
    assert "fd88::1" in reply.warnings[0]
    guest = await make_guest(attachment, fds)

    told = await guest.lease()

    assert told["ip"] == "10.88.0.5"
    assert told["router"] == "10.88.0.1"
    assert told["search"] == "shop.svc.cluster.local svc.cluster.local"
    assert "staticroutes" not in told
    await node("ping -c3 -i0.2 -W2 10.88.0.5")
    await guest.space("ping -c3 -i0.2 -W2 10.88.0.1")
    # Duplicate address detection passes although the node reflects the guest's own solicitation.
    await guest.space(
        "sysctl -qw net.ipv6.conf.all.enhanced_dad=0 net.ipv6.conf.eth0.enhanced_dad=0; ip addr add fd88::5/64 dev eth0"
    )
    await guest.space("sleep 2.5; ! ip -6 addr show dev eth0 | grep -E 'tentative|dadfailed'")
    await node("ping -c1 -W2 fd88::5")
    assert POD_MAC in await node("ip neigh show 10.88.0.5")
    # Where the bridge family is missing, this alone keeps the guest's MAC from being learned on the wrong port.
    assert "learning off" in await pod("bridge -d link show dev eth0-nic")
    # What the CNI plugin looks for when the pod is deleted is still there under its name.
    assert "10.88.0.5/24" in await pod("ip addr show dev eth0")
    assert POD_MAC in await pod("ip link show dev eth0")

    guest.stop()
    network.close()
    down = await network.call("down", request())
    assert down.error is None
    assert await pod.snapshot() == before
    await pod("ping -c1 -W2 10.88.0.1; ping -c1 -W2 fd88::1")


async def test_gateway_off_the_guests_own_network(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    node, pod = await routed_pod(make_space, 1450)
    before = await pod.snapshot()
    network = make_network(pod)
    reply, fds = await network.up(request())
    (attachment,) = reply.attachments
    assert attachment.mtu == 1450
    guest = await make_guest(attachment, fds)

    told = await guest.lease()

    assert told["ip"] == "10.99.0.7"
    assert told["mask"] == "32"
    assert told["mtu"] == "1450"
    assert told["staticroutes"] == "169.254.1.1/32 0.0.0.0 0.0.0.0/0 169.254.1.1"
    await guest.space("ping -c1 -W2 198.51.100.1; ping -c1 -W2 -M do -s 1422 198.51.100.1")
    await node("ping -c1 -W2 10.99.0.7")

    guest.stop()
    network.close()
    assert (await network.call("down", request())).error is None
    assert await pod.snapshot() == before
    await pod("ping -c1 -W2 198.51.100.1")


async def test_retry_after_a_lost_answer(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    _, pod = await bridged_pod(make_space)
    before = await pod.snapshot()
    network = make_network(pod)
    first, _ = await network.up(request())
    network.close()
    second, _ = await network.up(request())
    assert second.attachments == first.attachments
    network.close()
    assert (await network.call("down", request())).error is None
    assert (await network.call("down", request())).error is None
    assert await pod.snapshot() == before


async def test_failure_half_way_is_undone(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    _, pod = await bridged_pod(make_space)
    # A link that has the name which the interface would get: renaming it fails after other things were done.
    await run("ip", "-n", pod.name, "link", "add", "eth0-nic", "type", "bridge")
    before = await pod.snapshot()
    network = make_network(pod)
    reply = await network.call("up", request())
    assert reply.error is not None
    assert "eth0-nic" in reply.error.message
    assert not network.descriptors
    assert await pod.snapshot() == before


async def test_network_without_addresses_gets_no_lease(
    make_space: MakeSpace, make_network: MakeNetwork
) -> None:
    node, pod = await make_space("node"), await make_space("pod")
    await wire(node, pod)
    reply, _ = await make_network(pod).up(request())
    (attachment,) = reply.attachments
    assert attachment.lease is None
    assert attachment.dhcp_fd is None
    assert "67" not in await pod("nft list ruleset")


async def test_no_interface(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    pod = await make_space("pod")
    reply = await make_network(pod).call("up", request())
    assert reply.error is not None
    assert reply.error.reason == "InterfaceMissing"
    assert "default" in reply.error.message


async def test_two_interfaces(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    """The pod network behind NAT, and a second one, as Multus names it, taken over. IPv6 by announcement."""
    node, pod = await bridged_pod(make_space)
    second = "pod16477688c0e"
    await wire(node, pod, names=("extra", second), mtu=9000)
    await node("ip addr add 10.77.0.1/24 dev extra; ip addr add fe80::77 dev extra nodad")
    await node("ip addr add fd77::1/64 dev extra nodad; ip addr add 2001:db8::1/128 dev lo")
    await pod(f"ip addr add 10.77.0.9/24 dev {second}; ip addr add fd77::9/64 dev {second} nodad")
    await pod(
        f"ip route add 10.66.0.0/16 via 10.77.0.1; ip -6 route add 2001:db8::/32 via fe80::77 dev {second}"
    )
    await pod(f"ip -6 route add default via fe80::77 dev {second} metric 2048")
    before = await pod.snapshot()
    both = (
        InterfaceRequest(name="default", mode="masquerade"),
        InterfaceRequest(name="extra", mode="takeover", link=second, queues=2),
    )
    network = make_network(pod)
    reply, fds = await network.up(request(interfaces=both))
    default, extra = reply.attachments
    assert extra.mtu == 9000
    assert extra.lease is not None
    assert extra.lease.routes[0].destination == "10.66.0.0/16"
    assert extra.lease.gateway6 == "fe80::77"
    links = await pod("ls /sys/class/net")
    assert {"k6t-eth0", "tap0", "k6t-16477688c0e", "tap16477688c0e", second} <= set(links.split())

    one = await make_guest(default, fds)
    assert (await one.lease())["ip"] == "10.0.2.2"
    await one.space("ping -c1 -W2 10.88.0.1")

    one.stop()
    network.close()
    assert (await network.call("down", request())).error is None
    assert await pod.snapshot() == before


async def test_ipv6_through_a_link_local_router(
    make_space: MakeSpace, make_network: MakeNetwork, make_guest: MakeGuest
) -> None:
    node, pod = await make_space("node"), await make_space("pod")
    await wire(node, pod)
    await node("ip addr add fe80::77/64 dev eth0 nodad; ip addr add fd55::1/128 dev lo")
    await node("ip -6 route add fd44::9/128 dev eth0; sysctl -qw net.ipv6.conf.all.forwarding=1")
    await pod(
        "ip addr add fd44::9/128 dev eth0 nodad; ip -6 route add default via fe80::77 dev eth0"
    )
    reply, fds = await make_network(pod).up(request())
    (attachment,) = reply.attachments
    assert not reply.warnings
    guest = await make_guest(attachment, fds)
    await guest.space("ip addr add fd44::9/128 dev eth0 nodad")
    await guest.space.eventually("ip -6 route | grep -q 'default via fe80::77'")
    await guest.space.eventually("ping -c1 -W1 fd55::1")
    await node("ping -c1 -W2 fd44::9")


async def test_leftovers_of_a_killed_owner(
    make_space: MakeSpace, make_network: MakeNetwork
) -> None:
    _, pod = await bridged_pod(make_space)
    before = await pod.snapshot()
    network = make_network(pod)
    async with pod.running("sleep", "600") as owner:
        await network.up(request(owner_pid=owner))
    reply = await network.call("clean", request())
    assert reply.cleaned == ("shop/vm1",)
    assert await pod.snapshot() == before


async def test_two_interfaces_want_the_same(
    make_space: MakeSpace, make_network: MakeNetwork
) -> None:
    _, pod = await bridged_pod(make_space)
    both = tuple(InterfaceRequest(name=name, mode="takeover") for name in ("one", "two"))
    reply = await make_network(pod).call("up", request(interfaces=both))
    assert reply.error is not None
    assert "two" in reply.error.message
    assert "eth0" in reply.error.message
