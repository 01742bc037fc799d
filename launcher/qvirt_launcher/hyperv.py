"""Hyper-V enlightenments: CPU flags that make Windows guests quicker (QEMU: docs/system/i386/hyperv).

They are KVM's; the emulator has none and would ignore the flags without a word, so there they are left out and noted.
"""

from __future__ import annotations

import re
from typing import Final

from qvirt_crds.domain import Domain, FeatureHyperv, FeatureState
from qvirt_crds.report import Accel
from qvirt_launcher.arguments import refused

_DEFAULT_SPINLOCKS: Final = 4096
#: At most twelve characters of CPUID, and no comma: ``-cpu`` has no way to write one.
_VENDOR: Final = re.compile(r"[^,\x00-\x1f\x7f-\U0010ffff]{1,12}")


def flags(domain: Domain, accel: Accel) -> tuple[dict[str, str], tuple[str, ...]]:
    """``hv-*`` flags in a fixed order, and notes on what had to be dropped."""
    features = domain.features
    found: dict[str, str] = {}
    if features and _state(features.hyperv_passthrough):
        found["hv-passthrough"] = "on"
    if features and features.hyperv:
        found |= _enlightenments(features.hyperv)
    if any(panic.model == "hyperv" for panic in domain.devices.panic_devices):
        found["hv-crash"] = "on"
    timer = domain.clock.timer.hyperv if domain.clock and domain.clock.timer else None
    if timer and timer.present is not False:
        found["hv-time"] = "on"
    found |= _needed(found, domain)
    if accel == "tcg" and found:
        return {}, (f"without KVM there are no Hyper-V enlightenments: {', '.join(found)}",)
    return found, ()


def _needed(found: dict[str, str], domain: Domain) -> dict[str, str]:
    """What QEMU wants beside a feature, beyond what the contract's defaults fill in (they follow KubeVirt's).

    :raise SpecError: the spec denies it.
    """
    needed: dict[str, str] = {}
    timer = domain.clock.timer.hyperv if domain.clock and domain.clock.timer else None
    if "hv-stimer" in found and "hv-time" not in found:
        if timer is not None:
            raise refused("spec.domain.clock.timer.hyperv", "hyperv.synictimer needs this timer")
        needed["hv-time"] = "on"
    if "hv-tlbflush-direct" in found and "hv-vapic" not in found:
        if domain.features and domain.features.hyperv and domain.features.hyperv.vapic:
            raise refused("spec.domain.features.hyperv.vapic", "hyperv.tlbflush.direct needs it")
        needed["hv-vapic"] = "on"
    return needed


def _enlightenments(hyperv: FeatureHyperv) -> dict[str, str]:
    plain: tuple[tuple[str, FeatureState | None], ...] = (
        ("hv-relaxed", hyperv.relaxed),
        ("hv-vapic", hyperv.vapic),
        ("hv-vpindex", hyperv.vpindex),
        ("hv-runtime", hyperv.runtime),
        ("hv-synic", hyperv.synic),
        ("hv-reset", hyperv.reset),
        ("hv-frequencies", hyperv.frequencies),
        ("hv-reenlightenment", hyperv.reenlightenment),
        ("hv-ipi", hyperv.ipi),
        ("hv-evmcs", hyperv.evmcs),
    )
    found = {flag: "on" for flag, state in plain if _state(state)}
    if hyperv.spinlocks and hyperv.spinlocks.enabled is not False:
        retries = hyperv.spinlocks.spinlocks
        found["hv-spinlocks"] = str(_DEFAULT_SPINLOCKS if retries is None else retries)
    if hyperv.synictimer and hyperv.synictimer.enabled is not False:
        found["hv-stimer"] = "on"
        if _state(hyperv.synictimer.direct):
            found["hv-stimer-direct"] = "on"
    if hyperv.tlbflush and hyperv.tlbflush.enabled is not False:
        found["hv-tlbflush"] = "on"
        if _state(hyperv.tlbflush.direct):
            found["hv-tlbflush-direct"] = "on"
        if _state(hyperv.tlbflush.extended):
            found["hv-tlbflush-ext"] = "on"
    if hyperv.vendorid and hyperv.vendorid.enabled is not False and hyperv.vendorid.vendorid:
        found["hv-vendor-id"] = _vendor(hyperv.vendorid.vendorid)
    return found


def _vendor(text: str) -> str:
    if not _VENDOR.fullmatch(text):
        raise refused(
            "spec.domain.features.hyperv.vendorid.vendorid",
            f"{text!r} must have 1 to 12 ASCII characters and no comma",
        )
    return text


def _state(state: FeatureState | None) -> bool:
    return state is not None and state.enabled is not False
