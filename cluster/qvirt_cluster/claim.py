"""The machine's one cluster: whose it is, and what was there before it.

One at a time, because ports, bridge and iptables chains are the machine's. Written before anything
of the machine is changed, so that `down` knows what to leave and what to put back, whenever `up` was cut short.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from qvirt_cluster import chains
from qvirt_cluster.errors import UsageError
from qvirt_cluster.layout import CLAIM, Layout
from qvirt_cluster.processes import boot_id

#: Kernel settings that kubelet and kube-proxy change. Not ip_forward, which bridge and portmap turn on:
#: others on the machine may rely on it by the time that the cluster goes.
SETTINGS: Final = (
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "net/ipv4/conf/all/route_localnet",
    "net/bridge/bridge-nf-call-iptables",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
_SYS: Final = Path("/proc/sys")


@dataclass(frozen=True)
class Claim:
    """:param state: the state directory of the cluster.
    :param boot: the boot that all the rest is about.
    :param chains: iptables chains with names like ours that are not ours, as chains.py names them.
    :param tables: iptables tables that were in use.
    :param settings: kernel settings as they were.
    """

    state: str
    boot: str
    chains: tuple[str, ...]
    tables: tuple[str, ...]
    settings: Mapping[str, str]


def read_claim() -> Claim | None:
    """The claim on this machine in this boot, None if there is none."""
    try:
        found = json.loads(CLAIM.read_text())
        claim = Claim(
            state=str(found["state"]),
            boot=str(found["boot"]),
            chains=tuple(found["chains"]),
            tables=tuple(found["tables"]),
            settings=dict(found["settings"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{CLAIM} is damaged ({error}); remove it if no cluster runs") from error
    return claim if claim.boot == boot_id() else None


def stake(layout: Layout) -> None:
    """Claim the machine for this cluster; again is fine.

    :raise UsageError: another cluster has it.
    """
    claim = read_claim()
    if claim is None:
        before = chains.look()
        claim = Claim(
            state=str(layout.state),
            boot=boot_id(),
            chains=chains.ours(before),
            tables=chains.used_tables(before),
            settings=kernel_settings(),
        )
        partial = CLAIM.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(claim)))
        partial.rename(CLAIM)
    elif claim.state != str(layout.state):
        raise UsageError(
            f"this machine has a cluster in {claim.state} already; "
            f"use that one, or remove it with: down --state-dir {claim.state}"
        )


def release() -> None:
    """Put the kernel's settings back and give up the claim."""
    claim = read_claim()
    if claim is not None:
        restore(claim.settings)
    CLAIM.unlink(missing_ok=True)


def restore(settings: Mapping[str, str]) -> None:
    """Set what has changed since `kernel_settings` gave these."""
    for name, value in settings.items():
        if _setting(name) not in (None, value):
            with suppress(OSError):
                (_SYS / name).write_text(value)


def kernel_settings() -> dict[str, str]:
    """Those that kubelet and kube-proxy change, as they are."""
    found = {name: _setting(name) for name in SETTINGS}
    return {name: value for name, value in found.items() if value is not None}


def _setting(name: str) -> str | None:
    try:
        return (_SYS / name).read_text().strip()
    except OSError:  # this kernel does not have it
        return None
