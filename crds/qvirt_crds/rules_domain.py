"""Semantic refusals of CPU, memory and machine. Wording is KubeVirt's where its webhook has one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from qvirt_crds.default_devices import MACHINE_TYPES
from qvirt_crds.defaults import cpu_topology
from qvirt_crds.domain import Clock, Cpu, Domain
from qvirt_crds.errors import Cause
from qvirt_crds.quantity import Quantity, parse_quantity
from qvirt_crds.rules_firmware import check_clock, check_features, check_firmware
from qvirt_crds.rules_values import machine_type_of, not_implemented, printable, quantity, within

MAX_VCPUS: Final = 512
MIN_MEMORY: Final = 1_000_000
_ALLOWED: Final = "[q35* pc-q35* pc pc-i440fx-* microvm]"
_CPU_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")


def check_domain(domain: Domain, path: str) -> Iterator[Cause]:
    """All that is wrong with a machine, its devices apart."""
    yield from _machine(domain, f"{path}.machine.type")
    yield from _resources(domain, f"{path}.resources")
    yield from _memory(domain, path)
    yield from _cpu(domain, path)
    yield from check_firmware(domain, f"{path}.firmware")
    yield from check_clock(domain.clock or Clock(), f"{path}.clock")
    yield from check_features(domain, f"{path}.features")
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


def _io_threads(domain: Domain, path: str) -> Iterator[Cause]:
    count = domain.io_threads.supplemental_pool_thread_count if domain.io_threads else None
    if domain.io_threads_policy == "supplementalPool" and (count is None or count < 1):
        yield Cause(
            path=f"{path}.ioThreads.supplementalPoolThreadCount",
            message="the number of iothreads needs to be set and positive for the dedicated policy",
        )
