"""The door to pyroute2: look at a namespace, and carry operations out.

Everything speaks to the namespace of the calling thread (`qvirt_netsetup.netns`). Netlink answers at once or never; a
deadline covers each operation all the same.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self, assert_never

from pyroute2 import AsyncIPRoute, NetlinkError
from pyroute2.netlink.nfnetlink import nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import nft_chain_msg, nft_rule_msg, nft_table_msg
from pyroute2.nftables.main import AsyncNFTables

from qvirt_netsetup import decode, nftwire, sysctl
from qvirt_netsetup.errors import KernelRefused, NetworkError, from_errno
from qvirt_netsetup.nft import Chain, Family, Table
from qvirt_netsetup.observed import Address, Observed, Route
from qvirt_netsetup.plan import (
    AddAddress,
    AddRoute,
    CreateLink,
    DeleteAddress,
    DeleteLink,
    DeleteTable,
    Op,
    Rename,
    ReplaceTable,
    SetLearning,
    SetLink,
    SetSysctl,
)

_DEADLINE: Final = 10.0
_RTNH_F_ONLINK: Final = 4
_IFA_F_NODAD: Final = 2
# linux/netfilter/nfnetlink.h and nf_tables.h
_BATCH_BEGIN, _BATCH_END, _NFTABLES = 0x10, 0x11, 10
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
#: What a kernel without a family or an expression answers.
_LACKING: Final = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENOENT, errno.EPROTONOSUPPORT)


class Kernel:
    """``async with Kernel() as kernel``: netlink sockets in the calling thread's namespace."""

    def __init__(self) -> None:
        self._ip = AsyncIPRoute()
        self._nft: AsyncNFTables | None = None
        #: Sentences about what could not be done and isn't needed.
        self.warnings: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ip.close()
        if self._nft is not None:
            self._nft.close()

    async def observe(self) -> Observed:
        """Links, addresses, routes of the main table, and the names of packet filter tables."""
        async with asyncio.timeout(_DEADLINE):
            links = tuple([decode.link(message) async for message in await self._ip.link("dump")])
            names = {link.index: link.name for link in links}
            addresses = [
                decode.address(message, names) async for message in await self._ip.addr("dump")
            ]
            routes: list[Route] = []
            for family in (2, 10):
                async for message in await self._ip.route("dump", family=family):
                    routes += decode.route(message, names)
            tables, dropping = await self._filters()
        return Observed(
            links=links,
            addresses=tuple(addresses),
            routes=tuple(routes),
            tables=tables,
            dropping=dropping,
        )

    async def apply(self, ops: Iterable[Op]) -> None:
        """Carry out in order, stopping at the first failure; nothing is undone here.

        :raises NotPermitted: CAP_NET_ADMIN is missing.
        :raises KernelRefused: an operation failed; the message names it.
        """
        for op in ops:
            await self._one(op)

    async def apply_all(self, ops: Iterable[Op]) -> list[NetworkError]:
        """Carry out in order, going on after failures, as is right for removals. Returns the failures."""
        failures: list[NetworkError] = []
        for op in ops:
            try:
                await self._one(op)
            except NetworkError as error:
                failures.append(error)
        return failures

    async def _one(self, op: Op) -> None:
        try:
            async with asyncio.timeout(_DEADLINE):
                await self._carry_out(op)
        except NetlinkError as error:
            if isinstance(op, ReplaceTable) and op.optional and error.code in _LACKING:
                self.warnings.append(
                    f"packet filter table {op.table.family} {op.table.name}: not supported by this kernel; left out"
                )
                return
            raise from_errno(_describe(op), abs(error.code)) from error
        except TimeoutError as error:
            raise KernelRefused(_describe(op), errno.ETIMEDOUT) from error

    async def _index(self, name: str) -> int:
        found = await self._ip.link_lookup(ifname=name)
        if not found:
            raise NetlinkError(errno.ENODEV, name)
        return int(found[0])

    async def _carry_out(self, op: Op) -> None:
        match op:
            case CreateLink():
                await self._create(op)
            case DeleteLink(name=name):
                await self._ip.link("del", index=await self._index(name))
            case Rename(index=index, new=new):
                await self._ip.link("set", index=index, state="down")
                await self._ip.link("set", index=index, ifname=new)
            case SetLink():
                await self._set(op)
            case SetLearning(name=name, learning=learning):
                index = await self._index(name)
                await self._ip.brport("set", index=index, learning=int(learning))
            case AddAddress(address=address):
                await self._add_address(address)
            case DeleteAddress(link=link, address=address):
                await self._delete_address(link, address)
            case AddRoute(route=route):
                await self._add_route(route)
            case SetSysctl(key=key, value=value):
                sysctl.write(key, value)
            case ReplaceTable(table=table):
                await self._replace(table)
            case DeleteTable(family=family, name=name):
                await self._delete_table(family, name)
            case _:
                assert_never(op)

    async def _create(self, op: CreateLink) -> None:
        options: dict[str, object] = {"ifname": op.name}
        if op.mac is not None:
            options["address"] = op.mac
        if op.mtu is not None:
            options["mtu"] = op.mtu
        if op.kind == "bridge":
            # No spanning tree and no forwarding delay: a guest's first DHCP packet must pass. No snooping: without a
            # querier it would only lose neighbour discovery.
            await self._ip.link(
                "add",
                kind="bridge",
                br_stp_state=0,
                br_forward_delay=0,
                br_mcast_snooping=0,
                **options,
            )
            return
        try:
            await self._ip.link("add", kind="dummy", **options)
        except NetlinkError as error:
            if error.code not in _LACKING:
                raise
            await self._ip.link("add", kind="ifb", **options)

    async def _set(self, op: SetLink) -> None:
        index = await self._index(op.name)
        if op.up is False:
            await self._ip.link("set", index=index, state="down")
        if op.mac is not None:
            await self._ip.link("set", index=index, address=op.mac)
        if op.mtu is not None:
            await self._ip.link("set", index=index, mtu=op.mtu)
        if op.master is not None:
            master = await self._index(op.master) if op.master else 0
            await self._ip.link("set", index=index, master=master)
        if op.up:
            await self._ip.link("set", index=index, state="up")

    async def _add_address(self, address: Address) -> None:
        ip, length = address.address.split("/")
        options: dict[str, object] = {"address": ip, "prefixlen": int(length)}
        if address.scope:
            options["scope"] = address.scope
        if address.broadcast:
            options["broadcast"] = address.broadcast
        if ":" in ip:
            # Nobody else can have it: it was ours a moment ago, or the network is of our own making.
            options["flags"] = _IFA_F_NODAD
        await self._ip.addr("replace", index=await self._index(address.link), **options)

    async def _delete_address(self, link: str, address: str) -> None:
        ip, length = address.split("/")
        try:
            index = await self._index(link)
            await self._ip.addr("del", index=index, address=ip, prefixlen=int(length))
        except NetlinkError as error:
            if (
                error.code != errno.EADDRNOTAVAIL
            ):  # IPv6 ones go by themselves when a link goes down
                raise

    async def _add_route(self, route: Route) -> None:
        options: dict[str, object] = {"dst": route.destination}
        if route.gateway:
            options["gateway"] = route.gateway
        optional: dict[str, object] = {
            "priority": route.metric,
            "scope": route.scope,
            "proto": route.protocol,
            "prefsrc": route.source,
        }
        options |= {key: value for key, value in optional.items() if value}
        if route.onlink:
            options["flags"] = _RTNH_F_ONLINK
        if ":" in route.destination:
            options["family"] = 10
        await self._ip.route("replace", oif=await self._index(route.link), **options)

    def _filter(self) -> AsyncNFTables:
        if self._nft is None:
            self._nft = AsyncNFTables(nfgen_family=0)
        return self._nft

    async def _filters(self) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        try:
            tables = [decode.table(message) async for message in await self._filter().get_tables()]
            dropping = [
                decode.chain(message)
                async for message in await self._filter().get_chains()
                if decode.drops_forwarded(message)
            ]
        except NetlinkError as error:
            if error.code in (errno.EPERM, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
                return (), ()
            raise from_errno("listing packet filter tables", abs(error.code)) from error
        return tuple(tables), tuple(dropping)

    async def _batch(self, family: Family, messages: list[nfgen_msg]) -> None:
        """One transaction: all or nothing."""
        begin, end = nfgen_msg(), nfgen_msg()
        for edge, kind in ((begin, _BATCH_BEGIN), (end, _BATCH_END)):
            edge["res_id"] = _NFTABLES
            edge["header"]["type"] = kind
            edge["header"]["flags"] = _REQUEST
        for message in messages:
            message["nfgen_family"] = nftwire.FAMILIES[family]
        async for _ in self._filter().nlm_request_batch([begin, *messages, end]):
            pass

    async def _replace(self, table: Table) -> None:
        add = _message(nft_table_msg, _NEWTABLE, {"NFTA_TABLE_NAME": table.name}, _CREATE)
        # Adding what may be there and deleting it makes the deletion succeed in either case.
        delete = _message(nft_table_msg, _DELTABLE, {"NFTA_TABLE_NAME": table.name})
        again = _message(nft_table_msg, _NEWTABLE, {"NFTA_TABLE_NAME": table.name}, _CREATE)
        messages = [add, delete, again]
        for chain in table.chains:
            messages += _chain(table.name, chain)
        await self._batch(table.family, messages)

    async def _delete_table(self, family: str, name: str) -> None:
        known: Family
        for known in nftwire.FAMILIES:
            if known == family:
                message = _message(nft_table_msg, _DELTABLE, {"NFTA_TABLE_NAME": name})
                await self._batch(known, [message])


def _message(
    kind: type[nfgen_msg], number: int, attributes: dict[str, object], flags: int = 0
) -> nfgen_msg:
    message = kind()
    message["attrs"] = list(attributes.items())
    message["header"]["type"] = (_NFTABLES << 8) | number
    message["header"]["flags"] = _REQUEST | _ACK | flags
    return message


def _chain(table: str, chain: Chain) -> list[nfgen_msg]:
    attributes: dict[str, object] = {
        "NFTA_CHAIN_TABLE": table,
        "NFTA_CHAIN_NAME": chain.name,
        "NFTA_CHAIN_HOOK": nftwire.hook(chain),
        "NFTA_CHAIN_TYPE": chain.type,
    }
    messages = [_message(nft_chain_msg, _NEWCHAIN, attributes, _CREATE)]
    for rule in chain.rules:
        body: dict[str, object] = {
            "NFTA_RULE_TABLE": table,
            "NFTA_RULE_CHAIN": chain.name,
            "NFTA_RULE_EXPRESSIONS": nftwire.expressions(rule),
        }
        messages.append(_message(nft_rule_msg, _NEWRULE, body, _CREATE | _APPEND))
    return messages


def _describe(op: Op) -> str:
    match op:
        case CreateLink(name=name, kind=kind):
            return f"creating {kind} {name}"
        case DeleteLink(name=name):
            return f"deleting link {name}"
        case Rename(old=old, new=new):
            return f"renaming {old} to {new}"
        case SetLink(name=name) | SetLearning(name=name):
            return f"configuring link {name}"
        case AddAddress(address=address):
            return f"giving address {address.address} to {address.link}"
        case DeleteAddress(link=link, address=gone):
            return f"taking address {gone} from {link}"
        case AddRoute(route=route):
            return f"adding the route to {route.destination} through {route.link}"
        case SetSysctl(key=key, value=value):
            return f"setting {key} to {value}"
        case ReplaceTable(table=table):
            return f"packet filter table {table.family} {table.name}"
        case DeleteTable(family=family, name=name):
            return f"deleting packet filter table {family} {name}"
        case _:
            assert_never(op)
