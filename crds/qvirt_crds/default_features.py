"""The part of `defaults` that is about hypervisor features: what is on, and what Hyper-V features need of each other."""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from msgspec.structs import replace

from qvirt_crds.domain import (
    Clock,
    FeatureHyperv,
    Features,
    FeatureState,
    HypervSpinlocks,
    Timer,
    Timers,
)

#: feature -> what must be on with it (QEMU docs, system/i386/hyperv: "Requires"); evmcs -> vapic as in KubeVirt.
HYPERV_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "synic": ("vpindex",),
    "synictimer": ("synic", "vpindex"),
    "tlbflush": ("vpindex",),
    "ipi": ("vpindex",),
    "evmcs": ("vapic",),
}
SPINLOCK_RETRIES: Final = 4096


class State(Protocol):
    """Any of the feature structs: they all have ``enabled``."""

    @property
    def enabled(self) -> bool | None: ...


_S = TypeVar("_S", bound=State)


def is_on(feature: State | None) -> bool:
    """A feature is on when its object is there and does not say ``enabled: false``."""
    return feature is not None and feature.enabled is not False


def with_feature_defaults(features: Features | None) -> Features:
    """ACPI on unless denied; ``enabled: true`` wherever an object is present without saying."""
    features = features or Features()
    return replace(
        features,
        acpi=_enabled(features.acpi or FeatureState()),
        apic=_enabled(features.apic),
        smm=_enabled(features.smm),
        pvspinlock=_enabled(features.pvspinlock),
        hyperv=_with_hyperv_defaults(features.hyperv),
        hyperv_passthrough=_enabled(features.hyperv_passthrough),
    )


def _enabled(feature: _S | None) -> _S | None:
    if feature is None or feature.enabled is not None:
        return feature
    return replace(feature, enabled=True)  # type: ignore[type-var]  # every State is a Struct


def needs_of(hyperv: FeatureHyperv) -> dict[str, str]:
    """Features that must be on for others: name -> one that needs it."""
    needs = {
        need: name
        for name, needs in HYPERV_NEEDS.items()
        if is_on(getattr(hyperv, name))
        for need in needs
    }
    if hyperv.tlbflush and is_on(hyperv.tlbflush) and is_on(hyperv.tlbflush.direct):
        needs["vapic"] = "tlbflush.direct"
    return needs


def with_hyperv_timer(clock: Clock | None, features: Features) -> Clock | None:
    """Synthetic timers (``hv-stimer``) are there only with the Hyper-V clock (``hv-time``)."""
    if features.hyperv is None or not is_on(features.hyperv.synictimer):
        return clock
    clock = clock or Clock()
    timers = clock.timer or Timers()
    if timers.hyperv is not None:
        return clock
    return replace(clock, timer=replace(timers, hyperv=Timer(present=True)))


def _with_hyperv_defaults(hyperv: FeatureHyperv | None) -> FeatureHyperv | None:
    if hyperv is None:
        return None
    states = {name: _enabled(getattr(hyperv, name)) for name in FeatureHyperv.__struct_fields__}
    for need in needs_of(hyperv):
        states[need] = states[need] or FeatureState(enabled=True)
    hyperv = FeatureHyperv(**states)
    if is_on(hyperv.spinlocks):
        hyperv = replace(hyperv, spinlocks=_with_retries(hyperv.spinlocks))
    return hyperv


def _with_retries(spinlocks: HypervSpinlocks | None) -> HypervSpinlocks | None:
    if spinlocks is None or spinlocks.spinlocks is not None:
        return spinlocks
    return replace(spinlocks, spinlocks=SPINLOCK_RETRIES)
