"""Who is believed about the addresses of a guest's interfaces."""

from __future__ import annotations

from qvirt_crds.agent import AgentInterface
from qvirt_crds.report import GuestInterface
from qvirt_handler.interfaces import MOST_UNKNOWN, Pod, status

MAC = "02:00:00:00:00:01"
CARD = GuestInterface(name="default", mac=MAC, address="10.0.2.2", leased=True)
POD = Pod(addresses=("10.1.2.3", "fd00::3"), primary="default", masquerade=("default",))


def told(*addresses: str, name: str = "enp1s0", mac: str = MAC) -> AgentInterface:
    return AgentInterface(name=name, mac=mac, addresses=addresses)


def test_the_guests_own_address_does_not_replace_the_pods() -> None:
    (entry,) = status([CARD], (told("10.0.2.2", "fd10::2"),), POD)
    assert entry["ipAddresses"] == ["10.1.2.3", "fd00::3"]
    assert entry["infoSource"] == "domain, guest-agent"
    assert entry["interfaceName"] == "enp1s0"


def test_a_family_that_the_guest_does_not_have_is_not_shown() -> None:
    (entry,) = status([CARD], (told("10.0.2.2", "fe80::1"),), POD)
    assert entry["ipAddresses"] == ["10.1.2.3"]
    (bare,) = status([CARD], (told(),), POD)
    assert "ipAddress" not in bare


def test_a_family_that_the_pod_does_not_have_is_the_guests() -> None:
    pod = Pod(addresses=("10.1.2.3",), primary="default")
    (entry,) = status([CARD], (told("10.1.2.3", "2001:db8::1", "fe80::1"),), pod)
    assert entry["ipAddresses"] == ["10.1.2.3", "2001:db8::1", "fe80::1"]
    assert entry["ipAddress"] == "10.1.2.3"


def test_a_secondary_interface_has_what_the_guest_gave_it() -> None:
    other = GuestInterface(name="blue", mac="02:00:00:00:00:02", address="10.9.0.5", leased=True)
    agent = told("192.168.1.5", name="enp2s0", mac="02:00:00:00:00:02")
    default, blue = status([other, CARD], (agent,), POD)
    assert blue["ipAddresses"] == ["192.168.1.5"]
    assert (default["name"], default["infoSource"]) == ("default", "domain")


def test_interfaces_of_the_guests_own_come_last_and_are_not_endless() -> None:
    bridges = [told("172.17.0.1", name=f"br{n}", mac=f"02:42:00:00:00:{n:02x}") for n in range(20)]
    first, *others = status([CARD], (*bridges, told("10.0.2.2")), POD)
    assert first["name"] == "default"
    assert len(others) == MOST_UNKNOWN
    assert others[0] == {
        "interfaceName": "br0",
        "mac": "02:42:00:00:00:00",
        "infoSource": "guest-agent",
        "ipAddress": "172.17.0.1",
        "ipAddresses": ["172.17.0.1"],
    }


def test_a_card_below_a_bridge_is_known_by_the_bridges_addresses() -> None:
    (entry,) = status([CARD], (told(), told("10.0.2.2", name="br0")), POD)
    assert entry["interfaceName"] == "br0"
    assert entry["ipAddresses"] == ["10.1.2.3"]


def test_a_vlan_on_a_card_is_an_interface_of_its_own() -> None:
    default, vlan = status([CARD], (told("10.0.2.2"), told("10.7.0.1", name="enp1s0.7")), POD)
    assert default["interfaceName"] == "enp1s0"
    assert vlan["ipAddresses"] == ["10.7.0.1"]


def test_without_an_agent_the_domain_alone_is_the_source() -> None:
    (entry,) = status([CARD], None, POD)
    assert entry["infoSource"] == "domain"
    assert "interfaceName" not in entry
