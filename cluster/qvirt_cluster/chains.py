"""iptables chains of kubelet, kube-proxy and the CNI plugins: seen, and removed with the jumps to them.

`kube-proxy --cleanup` leaves kubelet's and the plugins' behind, and does not run when kube-proxy is gone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from qvirt_cluster.commands import find_program, run
from qvirt_cluster.layout import CHAIN_PREFIXES

Family = Literal["iptables", "ip6tables"]
FAMILIES: Final[tuple[Family, ...]] = ("iptables", "ip6tables")
#: nftables' names of the families, for the empty tables that iptables-nft leaves.
_NFT_FAMILY: Final[Mapping[str, str]] = {"iptables": "ip", "ip6tables": "ip6"}
Saved = Mapping[Family, str]


def look() -> Saved:
    """What iptables-save and ip6tables-save print; a family that the kernel lacks is empty."""
    return {
        family: run(f"{family}-save", accept=(0, 1)) if find_program(f"{family}-save") else ""
        for family in FAMILIES
    }


def ours(saved: Saved) -> tuple[str, ...]:
    """Chains with names like ours, each as ``iptables/nat/KUBE-SERVICES``. Pure."""
    return tuple(
        f"{family}/{table}/{chain}"
        for family, text in saved.items()
        for table, lines in _tables(text).items()
        for chain in _chains(lines)
        if chain.startswith(CHAIN_PREFIXES)
    )


def used_tables(saved: Saved) -> tuple[str, ...]:
    """Tables that exist, each as ``iptables/nat``. Pure."""
    return tuple(f"{family}/{table}" for family, text in saved.items() for table in _tables(text))


def empty_tables(saved: Saved) -> tuple[str, ...]:
    """Tables with nothing but the kernel's own chains, at their default policy. Pure."""
    return tuple(
        f"{family}/{table}"
        for family, text in saved.items()
        for table, lines in _tables(text).items()
        if all(re.match(r":\S+ ACCEPT ", line) for line in lines)
    )


def removal(text: str, doomed: Iterable[str]) -> str:
    """Input for ``iptables-restore --noflush`` that removes chains and every rule that leads to them. Pure.

    :param text: what iptables-save printed.
    :param doomed: the chains, each as ``table/chain``.
    Empty when there is nothing to do.
    """
    wanted = frozenset(doomed)
    parts: list[str] = []
    for table, lines in _tables(text).items():
        gone = [chain for chain in _chains(lines) if f"{table}/{chain}" in wanted]
        jumps = [line for line in lines if _leads_to(line, frozenset(gone))]
        if gone:
            parts += [
                f"*{table}",
                *(line.replace("-A", "-D", 1) for line in jumps),
                *(f"-F {chain}" for chain in gone),
                *(f"-X {chain}" for chain in gone),
                "COMMIT",
            ]
    return "".join(f"{line}\n" for line in parts)


def remove(keep: Iterable[str], keep_tables: Iterable[str]) -> None:
    """Remove all chains with names like ours but `keep`, and tables left empty but `keep_tables`.

    :raise CommandFailed: iptables refused.
    """
    kept, saved = frozenset(keep), look()
    for family in FAMILIES:
        prefix = f"{family}/"
        doomed = [name for name in ours({family: saved[family]}) if name not in kept]
        script = removal(saved[family], [name.removeprefix(prefix) for name in doomed])
        if script:
            run(f"{family}-restore", "--noflush", "--wait", "10", stdin=script)
    _drop_tables(frozenset(keep_tables))


def _drop_tables(keep: frozenset[str]) -> None:
    """iptables-nft makes a table at its first rule and never removes it; the old iptables has no such thing."""
    if find_program("nft") is None:
        return
    for name in empty_tables(look()):
        family, _, table = name.partition("/")
        if name not in keep:
            run("nft", "delete", "table", _NFT_FAMILY[family], table, accept=(0, 1))


def _tables(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("*"):
            lines = found.setdefault(line[1:].strip(), [])
        elif line.startswith((":", "-A")):
            lines.append(line)
    return found


def _chains(lines: Iterable[str]) -> list[str]:
    return [line[1:].split()[0] for line in lines if line.startswith(":")]


def _leads_to(line: str, gone: frozenset[str]) -> bool:
    """A rule of a chain that stays, which jumps to one that goes."""
    if not line.startswith("-A"):
        return False
    words = shlex.split(line)  # a comment is one word, whatever is in it
    targets = {words[at + 1] for at, word in enumerate(words[:-1]) if word in ("-j", "-g")}
    return bool(targets & gone) and words[1] not in gone
