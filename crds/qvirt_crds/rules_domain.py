"""Semantic refusals of ``spec.domain`` without its devices. Wording is KubeVirt's where its webhook has one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from qvirt_crds.default_devices import chipset
from qvirt_crds.default_features import is_on, needs_of
from qvirt_crds.defaults import cpu_topology
from qvirt_crds.domain import Clock, Cpu, Domain, FeatureHyperv, Firmware, KernelBoot, Timers
from qvirt_crds.errors import Cause
from qvirt_crds.quantity import Quantity, parse_quantity
from qvirt_crds.rules_values import machine_type_of, not_implemented, printable, quantity, within

MAX_VCPUS: Final = 512
MIN_MEMORY: Final = 1_000_000
MAX_MEMORY: Final = 2**63 - 1
MACHINE_TYPES: Final = re.compile(r"q35|pc|microvm|pc-(?:q35|i440fx)-[A-Za-z0-9.+_-]+")
_ALLOWED: Final = "[q35* pc-q35* pc pc-i440fx-* microvm]"
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CPU_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_TIMEZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
#: CPUID has twelve bytes for it; QEMU's ``-cpu`` has no way to write a comma.
_VENDOR: Final = re.compile(r"[ -+\--~]{1,12}")
_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")


def check_domain(domain: Domain, path: str) -> Iterator[Cause]:
    """All that is wrong with a machine, its devices apart."""
    yield from _machine(domain, f"{path}.machine.type")
    yield from _resources(domain, f"{path}.resources")
    yield from _memory(domain, path)
    yield from _cpu(domain, path)
    yield from _firmware(domain, f"{path}.firmware")
    yield from _clock(domain.clock or Clock(), f"{path}.clock")
    yield from _features(domain, f"{path}.features")
    yield from _io_threads(domain, path)
    if domain.chassis:
        for name in domain.chassis.__struct_fields__:
            yield from printable(getattr(domain.chassis, name), f"{path}.chassis.{name}")


def _machine(domain: Domain, path: str) -> Iterator[Cause]:
    name = machine_type_of(domain)
    if not MACHINE_TYPES.fullmatch(name):
        yield Cause(
            path=path, message=f"{path} is not supported: {name} (allowed values: {_ALLOWED})"
        )


def _resources(domain: Domain, path: str) -> Iterator[Cause]:
    requests, limits = domain.resources.requests, domain.resources.limits
    for kind, values in (("requests", requests), ("limits", limits)):
        for name, value in values.items():
            inner = f"{path}.{kind}.{name}"
            if name not in _RESOURCES:
                yield not_implemented(inner, f"the resources are {', '.join(_RESOURCES)}")
                continue
            yield from quantity(value, inner)
            least = (MIN_MEMORY, "1M") if name == "memory" else (0, "0")
            yield from within(value, inner, *least)
    for name in ("cpu", "memory"):
        if _is_more(requests.get(name), limits.get(name)):
            yield Cause(
                path=f"{path}.requests.{name}",
                message=f"{path}.requests.{name} '{requests[name]}' is greater than {path}.limits.{name} '{limits[name]}'",
            )


def _is_more(left: Quantity | None, right: Quantity | None) -> bool:
    try:
        return (
            left is not None and right is not None and parse_quantity(left) > parse_quantity(right)
        )
    except ValueError:
        return False


def _memory(domain: Domain, path: str) -> Iterator[Cause]:
    memory, resources = domain.memory, domain.resources
    hugepages = memory.hugepages if memory else None
    guest = memory.guest if memory else None
    asked = resources.requests.get("memory", resources.limits.get("memory"))
    if guest is None and asked is None and hugepages is None:
        yield Cause(
            path=f"{path}.memory.guest",
            message=f"no memory requested, at least one of '{path}.memory.guest', '{path}.memory.hugepages.pageSize' or '{path}.resources.requests.memory' must be set",
        )
    if guest is not None and guest != asked:
        yield from quantity(guest, f"{path}.memory.guest")
        yield from within(guest, f"{path}.memory.guest", MIN_MEMORY, "1M")
    if memory and memory.max_guest is not None:
        remedy = "no memory can be plugged into a running guest; leave it out"
        yield not_implemented(f"{path}.memory.maxGuest", remedy)
    if hugepages:
        yield from _hugepages(
            hugepages.page_size, guest if guest is not None else asked, f"{path}.memory"
        )


def _hugepages(page: str, guest: Quantity | None, path: str) -> Iterator[Cause]:
    inner = f"{path}.hugepages.pageSize"
    if page not in ("2Mi", "1Gi"):
        yield Cause(path=inner, message=f"expected 2Mi or 1Gi, the huge pages of x86; found {page}")
        return
    try:
        size, wanted = parse_quantity(page), parse_quantity(guest if guest is not None else page)
    except ValueError:
        return
    if wanted < size:
        message = (
            f"{path}.guest '{guest}' must be equal to or larger than page size {inner} '{page}'"
        )
        yield Cause(path=inner, message=message)
    elif wanted % size:
        message = f"{path}.guest '{guest}' is not a multiple of the page size {inner} '{page}'"
        yield Cause(path=inner, message=message)


def _cpu(domain: Domain, path: str) -> Iterator[Cause]:
    cpu = domain.cpu or Cpu()
    counts = {"sockets": cpu.sockets, "cores": cpu.cores, "threads": cpu.threads}
    bad = [name for name, n in counts.items() if n is not None and n < 1]
    for name in bad:
        yield Cause(path=f"{path}.cpu.{name}", message=f"must be 1 or more, found {counts[name]}")
    sockets, cores, threads = cpu_topology(cpu, domain.resources)
    where = f"{path}.cpu" if any(counts.values()) else f"{path}.resources"
    if not bad and sockets * cores * threads > MAX_VCPUS:
        yield Cause(
            path=where,
            message=f"{sockets * cores * threads} vCPUs (sockets * cores * threads) are more than {MAX_VCPUS}",
        )
    yield from _max_sockets(cpu, sockets, f"{path}.cpu")
    if cpu.model and not _CPU_NAME.fullmatch(cpu.model):
        yield Cause(
            path=f"{path}.cpu.model", message=f"{cpu.model!r} is not the name of a CPU model"
        )
    seen: set[str] = set()
    for index, feature in enumerate(cpu.features):
        inner = f"{path}.cpu.features[{index}].name"
        if not _CPU_NAME.fullmatch(feature.name):
            yield Cause(path=inner, message=f"{feature.name!r} is not the name of a CPU feature")
        if feature.name in seen:
            yield Cause(path=inner, message=f"{feature.name} is there twice")
        seen.add(feature.name)
    if cpu.dedicated_cpu_placement:
        yield not_implemented(f"{path}.cpu.dedicatedCpuPlacement")


def _max_sockets(cpu: Cpu, sockets: int, path: str) -> Iterator[Cause]:
    if cpu.max_sockets is None:
        return
    if cpu.max_sockets < sockets:
        yield Cause(
            path=f"{path}.maxSockets",
            message="Number of sockets in CPU topology is greater than the maximum sockets allowed",
        )
    if cpu.max_sockets * (cpu.cores or 1) * (cpu.threads or 1) > MAX_VCPUS:
        yield Cause(path=f"{path}.maxSockets", message=f"more than {MAX_VCPUS} vCPUs can't be had")


def _firmware(domain: Domain, path: str) -> Iterator[Cause]:
    firmware = domain.firmware or Firmware()
    if firmware.uuid and not _UUID.fullmatch(firmware.uuid):
        yield Cause(path=f"{path}.uuid", message=f"{firmware.uuid!r} is not a UUID")
    yield from printable(firmware.serial, f"{path}.serial")
    if firmware.bootloader:
        yield from _bootloader(domain, firmware, f"{path}.bootloader")
    if firmware.kernel_boot:
        yield from _kernel_boot(firmware.kernel_boot, f"{path}.kernelBoot")


def _bootloader(domain: Domain, firmware: Firmware, path: str) -> Iterator[Cause]:
    loader = firmware.bootloader
    if loader is None or loader.efi is None:
        return
    if loader.bios is not None:
        message = f"{path} has both EFI and BIOS configured, but they are mutually exclusive."
        yield Cause(path=path, message=message)
    if loader.efi.persistent:
        yield not_implemented(f"{path}.efi.persistent")
    kind = chipset(machine_type_of(domain))
    if kind == "microvm":
        yield Cause(
            path=f"{path}.efi", message="the machine type microvm has no EFI firmware; use q35"
        )
        return
    if loader.efi.secure_boot is False:
        return
    if not is_on(domain.features.smm if domain.features else None):
        message = f"{path} has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled."
        yield Cause(path=f"{path}.efi.secureBoot", message=message)
    elif kind != "q35":
        message = "SecureBoot needs the machine type q35; write secureBoot: false to do without"
        yield Cause(path=f"{path}.efi.secureBoot", message=message)


def _kernel_boot(boot: KernelBoot, path: str) -> Iterator[Cause]:
    container = boot.container
    yield from printable(boot.kernel_args, f"{path}.kernelArgs")
    if container is None or not container.kernel_path:
        if boot.kernel_args:
            message = "kernel arguments cannot be provided without an external kernel"
            yield Cause(path=f"{path}.kernelArgs", message=message)
        if container is not None and container.initrd_path:
            message = "an initrd needs the kernel that unpacks it; give kernelPath, too"
            yield Cause(path=f"{path}.container.initrdPath", message=message)
    if container is None:
        return
    inner = f"{path}.container"
    if not container.image:
        yield Cause(path=f"{inner}.image", message=f"{inner} must be defined with an image")
    if not container.kernel_path and not container.initrd_path:
        message = (
            f"{inner} must be defined with at least one of the following: kernelPath, initrdPath"
        )
        yield Cause(path=inner, message=message)
    for name, file in (
        ("kernelPath", container.kernel_path),
        ("initrdPath", container.initrd_path),
    ):
        if file and (not file.startswith("/") or ".." in file.split("/")):
            message = (
                f"{inner}.{name} must be an absolute path to a file without relative components"
            )
            yield Cause(path=f"{inner}.{name}", message=message)


#: What QEMU can do of each timer's policies: the RTC has driftfix, the PIT lost_tick_policy, the HPET only its default.
_POLICIES: Final[dict[str, tuple[str, ...]]] = {
    "hpet": ("delay",),
    "pit": ("delay", "discard"),
    "rtc": ("delay", "catchup"),
    "kvm": (),
    "hyperv": (),
}


def _clock(clock: Clock, path: str) -> Iterator[Cause]:
    if clock.utc is not None and clock.timezone is not None:
        yield Cause(path=path, message="utc and timezone are mutually exclusive")
    if clock.timezone is not None and not _TIMEZONE.fullmatch(clock.timezone):
        message = f"{clock.timezone!r} is not the name of a time zone, like Europe/Paris"
        yield Cause(path=f"{path}.timezone", message=message)
    for name, allowed in _POLICIES.items():
        timer = getattr(clock.timer or Timers(), name)
        inner = f"{path}.timer.{name}"
        if timer and timer.tick_policy and timer.tick_policy not in allowed:
            can = f"it can {' or '.join(allowed)}" if allowed else "it has none"
            message = f"QEMU's {name} timer has no tick policy {timer.tick_policy}: {can}"
            yield Cause(path=f"{inner}.tickPolicy", message=message)
        if timer and timer.track and name != "rtc":
            yield Cause(path=f"{inner}.track", message="only the rtc timer has a track")


def _features(domain: Domain, path: str) -> Iterator[Cause]:
    features = domain.features
    if features is None:
        return
    hyperv = features.hyperv
    if hyperv is not None and is_on(features.hyperv_passthrough):
        message = "hyperv and hypervPassthrough are mutually exclusive"
        yield Cause(path=f"{path}.hypervPassthrough", message=message)
    yield from _hyperv(hyperv or FeatureHyperv(), f"{path}.hyperv")
    timer = domain.clock.timer.hyperv if domain.clock and domain.clock.timer else None
    if hyperv and is_on(hyperv.synictimer) and timer and timer.present is False:
        message = "synictimer needs the timer clock.timer.hyperv, which is disabled"
        yield Cause(path=f"{path}.hyperv.synictimer", message=message)


def _hyperv(hyperv: FeatureHyperv, path: str) -> Iterator[Cause]:
    for need, name in needs_of(hyperv).items():
        state = getattr(hyperv, need)
        if state is not None and not is_on(state):
            yield Cause(
                path=f"{path}.{need}.enabled", message=f"{name} needs {need}, which is disabled"
            )
    spinlocks, vendor = hyperv.spinlocks, hyperv.vendorid
    if spinlocks and spinlocks.spinlocks is not None and not 4096 <= spinlocks.spinlocks < 2**32:
        yield Cause(path=f"{path}.spinlocks.spinlocks", message="must be 4096 or more")
    if vendor and is_on(vendor) and not _VENDOR.fullmatch(vendor.vendorid):
        message = (
            f"expected 1 to 12 ASCII characters, none of them a comma, found {vendor.vendorid!r}"
        )
        yield Cause(path=f"{path}.vendorid.vendorid", message=message)


def _io_threads(domain: Domain, path: str) -> Iterator[Cause]:
    count = domain.io_threads.supplemental_pool_thread_count if domain.io_threads else None
    if domain.io_threads_policy == "supplementalPool" and (count is None or count < 1):
        yield Cause(
            path=f"{path}.ioThreads.supplementalPoolThreadCount",
            message="the number of iothreads needs to be set and positive for the dedicated policy",
        )
