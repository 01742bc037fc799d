"""What a launcher pod asks of its node beyond the guest's RAM.

The overhead is a sum of parts, each measured on a real cluster (docs/memory.md) and with a margin. It has to be enough:
a guest whose limit is too low is killed. The guest's RAM is the big part.
"""

from __future__ import annotations

from typing import Final

from qvirt_crds.meta import JsonObject
from qvirt_crds.quantity import parse_bytes
from qvirt_crds.vm import VirtualMachineInstanceSpec
from qvirt_pods.settings import Settings

_MIB: Final = 2**20

#: virt-launcher with its DHCP responder, console and agent: measured 12 to 16 MiB.
LAUNCHER_BYTES: Final = 18 * _MIB
#: QEMU with a few disks and cards, and what the kernel holds for it: measured 29 to 36 MiB.
QEMU_BYTES: Final = 38 * _MIB
#: A run of virt-probe; readiness and liveness may be looked at at the same time.
PROBE_BYTES: Final = 12 * _MIB
#: Measured 1 MiB.
VCPU_BYTES: Final = 2 * _MIB
#: The display adapter's memory, which a guest may use to its end, and a VNC client's pictures.
GRAPHICS_BYTES: Final = 20 * _MIB
#: Translated code of an emulated guest, which the launcher limits to 64 MiB, and its tables.
EMULATION_BYTES: Final = 68 * _MIB
#: What the device plugin of virt-handler offers.
KVM: Final = "devices.kubevirt.io/kvm"

Requirements = dict[str, dict[str, str]]

#: Of the containers that only hold a disk's image open.
_HOLDER_REQUESTS: Final = {"cpu": "1m", "memory": "1M"}
#: They do nothing, but a container runtime starts them within their limit: 15 ms of work, which took 1.5 s at 10m.
_HOLDER_LIMITS: Final = {"cpu": "200m", "memory": "40M"}
#: Where requests have to be the same as limits.
_HOLDER_GUARANTEED: Final = {"cpu": "50m", "memory": "40M"}


def vcpus(spec: VirtualMachineInstanceSpec) -> int:
    """Sockets times cores times threads of a defaulted spec."""
    cpu = spec.domain.cpu
    return (cpu.sockets or 1) * (cpu.cores or 1) * (cpu.threads or 1) if cpu else 1


def overhead(spec: VirtualMachineInstanceSpec, settings: Settings) -> int:
    """Bytes that the pod needs beyond the guest's RAM."""
    graphics = spec.domain.devices.autoattach_graphics_device is not False
    probes = sum(map(looks_inside, (spec.liveness_probe, spec.readiness_probe)))
    parts = (
        LAUNCHER_BYTES,
        QEMU_BYTES,
        VCPU_BYTES * vcpus(spec),
        GRAPHICS_BYTES if graphics else 0,
        PROBE_BYTES * probes,
        EMULATION_BYTES if settings.use_emulation else 0,
    )
    return int(sum(parts) * settings.overhead_ratio)


def looks_inside(probe: JsonObject | None) -> bool:
    """Whether a probe is carried out inside of the guest, by its agent."""
    return probe is not None and ("exec" in probe or "guestAgentPing" in probe)


def requirements(spec: VirtualMachineInstanceSpec, settings: Settings) -> Requirements:
    """The compute container's ``resources``.

    KubeVirt's rules: what the user says passes, memory grows by the overhead; one that says nothing of the CPU gets a
    tenth of one for each vCPU.
    """
    wanted = spec.domain.resources
    requests = {key: str(value) for key, value in wanted.requests.items()}
    limits = {key: str(value) for key, value in wanted.limits.items()}
    requests["memory"] = str(_memory_request(spec, settings))
    if "memory" in limits:
        limits["memory"] = str(parse_bytes(limits["memory"]) + overhead(spec, settings))
    share = _cpu_share(vcpus(spec), settings.cpu_allocation_ratio)
    requests.setdefault("cpu", limits.get("cpu") or share)
    if size := page_size(spec):
        pages = -(-guest_bytes(spec) // parse_bytes(size))
        key = f"hugepages-{size}"
        requests[key] = limits[key] = str(pages * parse_bytes(size))
    if not settings.use_emulation:
        limits[KVM] = "1"
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}


def holder_requirements(compute: Requirements) -> Requirements:
    """``resources`` of the other containers: next to nothing, without costing the pod its QoS class."""
    requests, limits = compute["requests"], compute.get("limits", {})
    if all(limits.get(key) == requests[key] for key in ("cpu", "memory")):
        return {"requests": dict(_HOLDER_GUARANTEED), "limits": dict(_HOLDER_GUARANTEED)}
    return {"requests": dict(_HOLDER_REQUESTS), "limits": dict(_HOLDER_LIMITS)}


def guest_bytes(spec: VirtualMachineInstanceSpec) -> int:
    """RAM that the guest sees."""
    memory = spec.domain.memory
    return parse_bytes(memory.guest) if memory and memory.guest is not None else 0


def page_size(spec: VirtualMachineInstanceSpec) -> str:
    """The size of the guest's huge pages, e.g. ``2Mi``; empty: it has ordinary memory."""
    memory = spec.domain.memory
    return memory.hugepages.page_size if memory and memory.hugepages else ""


def _memory_request(spec: VirtualMachineInstanceSpec, settings: Settings) -> int:
    """Huge pages are asked for as such, so only what is beyond the guest's RAM remains."""
    wanted = spec.domain.resources
    given = wanted.requests.get("memory", wanted.limits.get("memory"))
    shared = guest_bytes(spec) * 100 // settings.memory_overcommit
    asked = shared if given is None else parse_bytes(given)
    if page_size(spec):
        asked = max(asked - guest_bytes(spec), 0)
    return asked + (0 if wanted.overcommit_guest_overhead else overhead(spec, settings))


def _cpu_share(count: int, ratio: int) -> str:
    return f"{max(count * 1000 // ratio, 1)}m"
