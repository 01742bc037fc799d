"""The processor: ``-cpu`` and ``-smp``.

KubeVirt's ``host-model`` is libvirt's word for "the host's CPU, spelled out by name and flags". QEMU has no such thing: under
KVM both host-* models become ``host``, under TCG they become ``max``, all that the emulator can do.
"""

from __future__ import annotations

import re
from typing import Final, assert_never

from qvirt_crds.domain import Cpu, CpuFeature, Domain
from qvirt_launcher import hyperv
from qvirt_launcher.arguments import Options, refused
from qvirt_launcher.board import family
from qvirt_launcher.facts import HostFacts

#: ``-cpu`` is no key=value list of QEMU's usual kind: a comma in it can't be escaped, so names must not have one.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
#: More need an IOMMU and x2APIC ids, on every machine type that we lay out.
_MAX_VCPUS: Final = 255
_HOST_MODELS: Final = frozenset({"host-model", "host-passthrough"})


def vcpus(domain: Domain) -> int:
    """How many vCPUs the guest starts with."""
    cpu = domain.cpu or Cpu()
    return (cpu.sockets or 1) * (cpu.cores or 1) * (cpu.threads or 1)


def topology(domain: Domain, host: HostFacts) -> Options:
    """``-smp``; sockets above the present ones are places for CPUs that come later (``maxSockets``).

    An emulated guest has such a place even if nobody asked. For a machine that can't have a second CPU QEMU translates the guest's locked
    instructions into plain ones (``CF_PARALLEL``; accel/tcg/tcg-accel-ops-mttcg.c), with no barrier between a store and a load.
    QEMU's own threads run beside the guest all the same: both miss each other's news of a virtio queue once in some hundred
    connections, and a card or a disk stands still for good (ADR 0009). A microvm's counted instructions (`clock`) exclude the cure.

    :raise SpecError: more vCPUs than the boards take.
    """
    cpu = domain.cpu or Cpu()
    sockets = max(cpu.sockets or 1, cpu.max_sockets or 1)
    cores, threads = cpu.cores or 1, cpu.threads or 1
    count = vcpus(domain)
    if host.accel == "tcg" and family(domain) != "microvm" and sockets * cores * threads == 1:
        sockets = 2
    maximum = sockets * cores * threads
    if maximum > _MAX_VCPUS:
        raise refused(
            "spec.domain.cpu", f"{maximum} vCPUs are more than QEMU's PC has: {_MAX_VCPUS}"
        )
    return {
        "cpus": count,
        "maxcpus": maximum if maximum > count else None,
        "sockets": sockets,
        "cores": cores,
        "threads": threads,
    }


def model(domain: Domain, host: HostFacts) -> tuple[str, tuple[str, ...]]:
    """``-cpu``, and notes about what this accelerator can't do.

    :raise SpecError: a model or feature that is no name, or a forbidden feature that the host's CPU has.
    """
    cpu = domain.cpu or Cpu()
    flags: dict[str, str] = {}
    notes: list[str] = []
    asked = cpu.model or "host-model"
    if asked in _HOST_MODELS:
        name = "host" if host.accel == "kvm" else "max"
        if host.accel == "tcg" and asked == "host-passthrough":
            notes.append("without KVM, host-passthrough is the emulator's own CPU model, max")
    else:
        name = _name(asked, "spec.domain.cpu.model")
        if all(feature.name != "mpx" for feature in cpu.features):
            # Dropped from processors and from Linux; KubeVirt takes it out of named models, too.
            flags["mpx"] = "off"
    for index, feature in enumerate(cpu.features):
        flags[_name(feature.name, f"spec.domain.cpu.features[{index}].name")] = _switch(
            feature, index, host
        )
    flags |= _paravirtual(domain, host)
    enlightenments, dropped = hyperv.flags(domain, host.accel)
    flags |= enlightenments
    notes += dropped
    if _enforced(cpu, asked, host):
        # Fail instead of starting with less than was asked for.
        flags["enforce"] = "on"
    return ",".join([name, *(f"{key}={value}" for key, value in flags.items())]), tuple(notes)


def _name(text: str, path: str) -> str:
    if not _NAME.fullmatch(text) or text == "help":
        raise refused(path, f"{text!r} is not a name of a CPU model or feature")
    return text


def _switch(feature: CpuFeature, index: int, host: HostFacts) -> str:
    match feature.policy:
        case "force" | "require" | "optional":
            return "on"
        case "disable":
            return "off"
        case "forbid":
            if host.accel == "kvm" and _plain(feature.name) in map(_plain, host.cpu_flags):
                raise refused(
                    f"spec.domain.cpu.features[{index}]",
                    f"{feature.name} is forbidden, but this host's CPU has it: use policy disable",
                )
            return "off"
        case unreachable:
            assert_never(unreachable)


def _plain(flag: str) -> str:
    """QEMU, libvirt and Linux differ in ``sse4.1``, ``sse4-1`` and ``sse4_1``."""
    return flag.replace(".", "-").replace("_", "-")


def _enforced(cpu: Cpu, asked: str, host: HostFacts) -> bool:
    """Whether a missing feature shall keep the guest from starting.

    Only where every feature that is not named is there by construction, or where KVM can provide a named model whole:
    TCG lacks some feature of nearly every named model.
    """
    required = any(feature.policy == "require" for feature in cpu.features)
    if asked in _HOST_MODELS:
        return required
    return host.accel == "kvm" and all(f.policy not in ("force", "optional") for f in cpu.features)


def _paravirtual(domain: Domain, host: HostFacts) -> dict[str, str]:
    """KVM's own CPU features (QEMU: docs/system/i386/kvm-pv). TCG has none of them, so none can be switched."""
    features, timer = domain.features, domain.clock.timer if domain.clock else None
    flags: dict[str, str] = {}
    if features and features.apic and features.apic.enabled is False:
        raise refused(
            "spec.domain.features.apic.enabled",
            "QEMU's PC can't do without: its PCI Express ports and SMP need the APIC",
        )
    if host.accel == "tcg":
        return flags
    if features and features.apic and features.apic.end_of_interrupt:
        flags["kvm-pv-eoi"] = "on"
    if features and features.kvm and features.kvm.hidden:
        flags["kvm"] = "off"
    if features and features.pvspinlock:
        flags["kvm-pv-unhalt"] = _on(features.pvspinlock.enabled is not False)
    if timer and timer.kvm:
        flags["kvmclock"] = _on(timer.kvm.present is not False)
    return flags


def _on(value: bool) -> str:
    return "on" if value else "off"
