"""Set-up, removal and cleaning in the calling thread's network namespace: observe, decide, remember, act.

Callers want `qvirt_netsetup.api` (own thread, other namespace) or `qvirt_netsetup.client` (own process).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import assert_never

import msgspec

from qvirt_crds.model import Model
from qvirt_crds.report import Attachment
from qvirt_netsetup import masquerade, nat, packet, plan, resolv, sysctl, takeover, tap
from qvirt_netsetup.apply import Kernel
from qvirt_netsetup.binding import Binding, Facts
from qvirt_netsetup.desired import Desired
from qvirt_netsetup.errors import NetworkError, RequestRefused, TapBusy
from qvirt_netsetup.observed import Observed
from qvirt_netsetup.request import (
    MAX_DESCRIPTORS,
    InterfaceRequest,
    NetworkReply,
    NetworkRequest,
)
from qvirt_netsetup.state import Store, is_alive, owner_of
from qvirt_netsetup.tenancy import Nic, State, Tenant


class Outcome(Model, frozen=True, kw_only=True):
    """A reply, and the descriptors whose positions it names. They belong to whoever receives this."""

    reply: NetworkReply
    descriptors: tuple[int, ...] = ()


def _merge(parts: list[Desired]) -> Desired:
    """All of them; what several name alike (the shared bridge) comes once."""
    links = {link.name: link for part in parts for link in part.links}
    return Desired(
        links=tuple(links.values()),
        absent=tuple(dict.fromkeys(item for part in parts for item in part.absent)),
        routes=tuple(route for part in parts for route in part.routes),
        sysctls=tuple(dict.fromkeys(item for part in parts for item in part.sysctls)),
        tables=tuple({(t.family, t.name): t for part in parts for t in part.tables}.values()),
        optional_tables=tuple(
            {(t.family, t.name): t for part in parts for t in part.optional_tables}.values()
        ),
        absent_tables=tuple(dict.fromkeys(item for part in parts for item in part.absent_tables)),
    )


def _check(request: NetworkRequest) -> None:
    if not request.name or not request.interfaces:
        raise RequestRefused("network request: a VM's name and at least one interface are needed")
    names = [interface.name for interface in request.interfaces]
    if len(set(names)) != len(names):
        raise RequestRefused(f"interfaces {', '.join(names)}: two have the same name; rename one")
    wanted = sum(i.queues * (2 if i.vhost else 1) + 1 for i in request.interfaces)
    if wanted > MAX_DESCRIPTORS or any(interface.queues < 1 for interface in request.interfaces):
        raise RequestRefused(
            f"interfaces: {wanted} descriptors for queues and DHCP, at most {MAX_DESCRIPTORS} can be handed over; use fewer queues"
        )


class Service:
    """One request's worth of work, under the lock of the state file."""

    def __init__(self, kernel: Kernel, store: Store) -> None:
        self._kernel = kernel
        self._store = store
        self._state = store.load()

    def _remember(self, state: State) -> None:
        self._state = state
        self._store.save(state)

    async def release(self, tenant: Tenant) -> list[NetworkError]:
        """Undo everything of one VM, going on after failures; forget it when nothing failed."""
        observed = await self._kernel.observe()
        rest = self._state.without(tenant)
        parts = [_undo(nic, observed) for nic in tenant.nics]
        if _uses_nat(tenant) and not any(_uses_nat(other) for other in rest.tenants):
            parts.append(nat.undo_all())
        if not rest.tenants:
            # Settings of links that are gone meanwhile went with them.
            there = sysctl.read_all(self._state.saved)
            saved = tuple(
                (key, self._state.saved[key]) for key in self._state.saved if key in there
            )
            parts.append(Desired(sysctls=saved))
        failures = await self._kernel.apply_all(plan.diff(observed, _merge(parts)))
        if not failures:
            self._remember(rest)
        return failures

    async def clean(self) -> tuple[tuple[str, ...], list[str]]:
        """Undo what VMs left whose owner is dead. Returns their names, and sentences about what failed."""
        cleaned: list[str] = []
        warnings: list[str] = []
        for tenant in self._state.tenants:
            if is_alive(tenant.owner):
                continue
            failures = await self.release(tenant)
            warnings += [f"leftover of {tenant.label}: {failure}" for failure in failures]
            if not failures:
                cleaned.append(tenant.label)
        return tuple(cleaned), warnings

    async def down(self, request: NetworkRequest, owner_pid: int) -> tuple[str, ...]:
        """Undo what this VM got; nothing to do is fine. Returns warnings.

        What a living process other than `owner_pid` set up is not touched: a supervisor that was refused because the VM runs
        already takes nothing away from the one that runs it.

        :raises NetworkError: the first of what failed. The rest was undone, and calling again tries again.
        """
        for tenant in self._state.tenants:
            if not tenant.is_of(request):
                continue
            if tenant.owner.pid != owner_pid and is_alive(tenant.owner):
                return (f"network of {tenant.label}: left to process {tenant.owner.pid}",)
            failures = await self.release(tenant)
            if failures:
                raise failures[0]
        return ()

    async def _admit(self, request: NetworkRequest, owner_pid: int) -> None:
        for tenant in self._state.tenants:
            if not tenant.is_of(request):
                continue
            if tenant.owner.pid != owner_pid and is_alive(tenant.owner):
                raise RequestRefused(
                    f"VM {tenant.label}: runs already, under process {tenant.owner.pid}; stop it first (qvirt stop {tenant.name})"
                )
            # The same owner again: its first try got no answer, so nobody holds the taps that it made.
            observed = await self._kernel.observe()
            for nic in tenant.nics:
                if observed.link(nic.tap):
                    raise TapBusy(nic.tap, f"made for {tenant.label} before and still open")
            for failure in await self.release(tenant):
                raise failure

    def _facts(self, request: NetworkRequest, observed: Observed) -> tuple[Facts, list[str]]:
        warnings: list[str] = []
        read = _resolver(request)
        servers = read.nameservers
        if request.dns is None:
            servers = resolv.reachable(read.nameservers)
            if not servers:
                servers = resolv.FALLBACK
                warnings.append(
                    f"no nameserver in {request.resolv_conf} that a guest can reach: guests get {', '.join(servers)}"
                )
        search = resolv.with_subdomain(read.search, request.subdomain)
        facts = Facts(
            observed=observed,
            state=self._state,
            resolver=resolv.Resolver(nameservers=servers, search=search),
            machine_id=_machine_id(),
            has_ipv6=sysctl.read("net/ipv6/conf/all/disable_ipv6") == "0",
            sysctls=sysctl.read_all((*nat.settings(observed), *takeover.settings(observed))),
        )
        return facts, warnings

    def _decide(self, request: NetworkRequest, facts: Facts, tenant: Tenant) -> list[Binding]:
        """Decide for each interface in turn, each knowing of the ones before."""
        bindings: list[Binding] = []
        if any(interface.mode == "nat" for interface in request.interfaces):
            facts = msgspec.structs.replace(facts, state=nat.place(facts.state, facts))
        state = facts.state
        others = state.tenants
        for interface in request.interfaces:
            tenants = (*others, tenant) if tenant.nics else others
            facts = msgspec.structs.replace(
                facts, state=msgspec.structs.replace(state, tenants=tenants)
            )
            binding = _decide_one(request, interface, facts)
            if any(nic.tap == binding.nic.tap for nic in tenant.nics):
                raise RequestRefused(
                    f"interface {interface.name}: another one of this VM has {binding.nic.link} already; give each its own network"
                )
            tenant = msgspec.structs.replace(tenant, nics=(*tenant.nics, binding.nic))
            bindings.append(binding)
        saved = state.saved or facts.sysctls
        self._state = msgspec.structs.replace(state, tenants=(*others, tenant), saved=saved)
        return bindings

    async def up(self, request: NetworkRequest, owner_pid: int) -> Outcome:
        """Make the VM's network. On failure all of it is undone.

        :raises NetworkError: with object, cause and remedy.
        """
        _check(request)
        cleaned, warnings = await self.clean()
        await self._admit(request, owner_pid)
        observed = await self._kernel.observe()
        facts, notes = self._facts(request, observed)
        tenant = Tenant(
            namespace=request.namespace,
            name=request.name,
            uid=request.uid,
            owner=owner_of(owner_pid),
        )
        bindings = self._decide(request, facts, tenant)
        for binding in bindings:
            if observed.link(binding.nic.tap):
                raise TapBusy(binding.nic.tap)
        self._remember(self._state)
        made: list[int] = []
        try:
            attachments = await self._make(request, bindings, made)
        except BaseException:
            for fd in made:
                os.close(fd)
            await self.release(self._state.tenants[-1])
            raise
        warnings += notes + [text for binding in bindings for text in binding.warnings]
        if any(binding.nic.mode == "nat" for binding in bindings):
            warnings += nat.warnings(observed)
        reply = NetworkReply(
            attachments=attachments,
            descriptors=len(made),
            warnings=tuple(dict.fromkeys(warnings + self._kernel.warnings)),
            cleaned=cleaned,
        )
        return Outcome(reply=reply, descriptors=tuple(made))

    async def _make(
        self, request: NetworkRequest, bindings: list[Binding], made: list[int]
    ) -> tuple[Attachment, ...]:
        """Open taps, carry out the set-up, open packet sockets and vhost-net. Descriptors are appended to `made` as they come."""
        taps: list[tuple[int, ...]] = []
        for interface, binding in zip(request.interfaces, bindings, strict=True):
            fds = tap.create(binding.nic.tap, queues=interface.queues, owner_uid=request.owner_uid)
            taps.append(tuple(range(len(made), len(made) + len(fds))))
            made += fds
        observed = await self._kernel.observe()
        desired = _merge([binding.desired for binding in bindings])
        await self._kernel.apply(plan.diff(observed, desired))
        attachments: list[Attachment] = []
        for interface, binding, positions in zip(request.interfaces, bindings, taps, strict=True):
            dhcp_fd = None
            if binding.lease is not None:
                dhcp_fd = len(made)
                made.append(packet.open_dhcp(binding.nic.tap))
            fast = tap.open_vhost(interface.queues) if interface.vhost else ()
            vhost = tuple(range(len(made), len(made) + len(fast)))
            made += fast
            attachments.append(_attachment(binding, positions, vhost, dhcp_fd))
        return tuple(attachments)


def _attachment(
    binding: Binding, taps: tuple[int, ...], vhost: tuple[int, ...], dhcp_fd: int | None
) -> Attachment:
    return Attachment(
        interface=binding.nic.interface,
        backend="tap",
        mac=binding.nic.mac,
        mtu=binding.mtu,
        tap_fds=taps,
        vhost_fds=vhost,
        dhcp_fd=dhcp_fd,
        lease=binding.lease,
    )


def _decide_one(request: NetworkRequest, interface: InterfaceRequest, facts: Facts) -> Binding:
    match interface.mode:
        case "nat":
            return nat.decide(request, interface, facts)
        case "takeover":
            return takeover.decide(request, interface, facts)
        case "masquerade":
            return masquerade.decide(request, interface, facts)
        case _:
            assert_never(interface.mode)


def _undo(nic: Nic, observed: Observed) -> Desired:
    match nic.mode:
        case "nat":
            return nat.undo(nic)
        case "takeover":
            return takeover.undo(nic, observed)
        case "masquerade":
            return masquerade.undo(nic)
        case _:
            assert_never(nic.mode)


def _uses_nat(tenant: Tenant) -> bool:
    return any(nic.mode == "nat" for nic in tenant.nics)


def _resolver(request: NetworkRequest) -> resolv.Resolver:
    try:
        text = Path(request.resolv_conf).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    read = resolv.parse(text)
    stub = read.nameservers and not resolv.reachable(read.nameservers)
    if stub and request.resolv_conf == "/etc/resolv.conf":
        # systemd-resolved keeps the real servers beside its stub's file.
        real = Path("/run/systemd/resolve/resolv.conf")
        if real.exists():
            read = resolv.parse(real.read_text(encoding="utf-8", errors="replace"))
    return resolv.Resolver(
        nameservers=read.nameservers if request.dns is None else request.dns,
        search=read.search if request.search is None else request.search,
    )


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


async def serve(request: NetworkRequest, owner_pid: int) -> Outcome:
    """Do what the request says, in the calling thread's namespace.

    :param owner_pid: the owner, unless the request names one.
    :raises NetworkError: with object, cause and remedy; nothing is left behind.
    """
    store = Store(request.state_dir)
    async with store.locked(), Kernel() as kernel:
        service = Service(kernel, store)
        owner = request.owner_pid or owner_pid
        match request.verb:
            case "up":
                return await service.up(request, owner)
            case "down":
                warnings = await service.down(request, owner)
                return Outcome(reply=NetworkReply(warnings=warnings))
            case "clean":
                cleaned, failed = await service.clean()
                return Outcome(reply=NetworkReply(cleaned=cleaned, warnings=tuple(failed)))
            case _:
                assert_never(request.verb)
