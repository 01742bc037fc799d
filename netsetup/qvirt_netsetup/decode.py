"""Netlink messages, as the door's library decodes them, to our structs. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final, Protocol

from qvirt_netsetup import nftwire
from qvirt_netsetup.observed import Address, Link, Route

# linux/if.h, linux/rtnetlink.h
_IFF_UP: Final = 1
_IFF_LOOPBACK: Final = 8
_RTN_UNICAST: Final = 1
_TABLE_MAIN: Final = 254
_RTNH_F_ONLINK: Final = 4
_AF_INET6: Final = 10
_HOOK_FORWARD: Final = 2
_POLICY_DROP: Final = 0


class Message(Protocol):
    """A decoded message: header fields by ``[]``, attributes by their full name."""

    def __getitem__(self, key: str, /) -> object: ...

    def get_attr(self, name: str, /) -> object: ...


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _learning(info: object) -> bool | None:
    if not hasattr(info, "get_attr"):
        return None
    data = info.get_attr("IFLA_INFO_SLAVE_DATA")
    if not hasattr(data, "get_attr"):
        return None
    value = data.get_attr("IFLA_BRPORT_LEARNING")
    return None if value is None else bool(value)


def link(message: Message) -> Link:
    """RTM_NEWLINK."""
    info = message.get_attr("IFLA_LINKINFO")
    flags = _number(message["flags"])
    return Link(
        index=_number(message["index"]),
        name=_text(message.get_attr("IFLA_IFNAME")),
        mac=_text(message.get_attr("IFLA_ADDRESS")),
        mtu=_number(message.get_attr("IFLA_MTU")),
        up=bool(flags & _IFF_UP),
        loopback=bool(flags & _IFF_LOOPBACK),
        kind=_text(info.get_attr("IFLA_INFO_KIND")) if hasattr(info, "get_attr") else "",
        master=_number(message.get_attr("IFLA_MASTER")),
        learning=_learning(info),
    )


def address(message: Message, names: Mapping[int, str]) -> Address:
    """RTM_NEWADDR. On a point-to-point link the local address is the one that counts."""
    own = _text(message.get_attr("IFA_LOCAL")) or _text(message.get_attr("IFA_ADDRESS"))
    return Address(
        link=names.get(_number(message["index"]), ""),
        address=f"{own}/{message['prefixlen']}",
        scope=_number(message["scope"]),
        broadcast=_text(message.get_attr("IFA_BROADCAST")),
    )


def route(message: Message, names: Mapping[int, str]) -> list[Route]:
    """RTM_NEWROUTE: a unicast route of the main table, or nothing."""
    if message["type"] != _RTN_UNICAST or message.get_attr("RTA_TABLE") != _TABLE_MAIN:
        return []
    everything = "::" if message["family"] == _AF_INET6 else "0.0.0.0"
    target = _text(message.get_attr("RTA_DST")) or everything
    prefix = str(ipaddress.ip_network(f"{target}/{message['dst_len']}", strict=False))
    return [
        Route(
            link=names.get(_number(message.get_attr("RTA_OIF")), ""),
            destination=prefix,
            gateway=_text(message.get_attr("RTA_GATEWAY")),
            metric=_number(message.get_attr("RTA_PRIORITY")),
            scope=_number(message["scope"]),
            protocol=_number(message["proto"]),
            source=_text(message.get_attr("RTA_PREFSRC")),
            onlink=bool(_number(message["flags"]) & _RTNH_F_ONLINK),
        )
    ]


def _family(message: Message) -> str:
    names = {number: str(name) for name, number in nftwire.FAMILIES.items()}
    return names.get(_number(message["nfgen_family"]), "")


def table(message: Message) -> tuple[str, str]:
    """NFT_MSG_NEWTABLE: family and name."""
    return _family(message), _text(message.get_attr("NFTA_TABLE_NAME"))


def chain(message: Message) -> str:
    """NFT_MSG_NEWCHAIN: family, table and name in one line, as ``nft list chain`` takes them."""
    names = (message.get_attr("NFTA_CHAIN_TABLE"), message.get_attr("NFTA_CHAIN_NAME"))
    return " ".join((_family(message), *map(_text, names)))


def drops_forwarded(message: Message) -> bool:
    """Whether the chain sees forwarded packets and drops those that none of its rules decides."""
    hook = message.get_attr("NFTA_CHAIN_HOOK")
    if not hasattr(hook, "get_attr"):
        return False
    number = hook.get_attr("NFTA_HOOK_HOOKNUM")
    policy = message.get_attr("NFTA_CHAIN_POLICY")
    return bool(number == _HOOK_FORWARD and policy == _POLICY_DROP)
