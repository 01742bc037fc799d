"""KubeVirt's defaults, made explicit in the spec, so that everything behind reads values and never guesses.

The order is that of KubeVirt's mutating webhook (reference: its API, "after admission"). `docs/defaults.md` has every
rule with its reason; it is written from `defaults_table`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from qvirt_crds.configuration import DEFAULT, Configuration
from qvirt_crds.default_devices import default_pull_policy, pod_interface, with_device_defaults
from qvirt_crds.default_features import with_feature_defaults, with_hyperv_timer
from qvirt_crds.domain import (
    Cpu,
    Domain,
    Firmware,
    Hugepages,
    Machine,
    Memory,
    Resources,
    Timer,
    Timers,
)
from qvirt_crds.quantity import Quantity, parse_quantity
from qvirt_crds.vm import VirtualMachineInstance, VirtualMachineInstanceSpec
from qvirt_crds.volumes import Network, PodNetwork, Volume

#: Without a configuration that says otherwise.
MACHINE_TYPE: Final = DEFAULT.machine_type


def apply_defaults(
    vmi: VirtualMachineInstance,
    *,
    new_uuid: Callable[[], str],
    configuration: Configuration = DEFAULT,
) -> VirtualMachineInstance:
    """The instance with every default written out. Applying it again changes nothing.

    Total: a spec that `validate_vmi` refuses comes back with what could be filled in.

    :param new_uuid: makes the SMBIOS UUID of an instance that brings none (``lambda: str(uuid.uuid4())``).
    :param configuration: of the cluster.
    """
    spec = vmi.spec
    spec = replace(
        spec,
        domain=_with_domain_defaults(spec.domain, new_uuid, configuration),
        architecture=spec.architecture or "amd64",
        eviction_strategy=spec.eviction_strategy or configuration.eviction_strategy,
    )
    spec = _with_pod_network(spec, configuration)
    volumes = tuple(map(_with_pull_policy, spec.volumes))
    devices = with_device_defaults(spec.domain, volumes)
    return replace(
        vmi,
        spec=replace(spec, volumes=volumes, domain=replace(spec.domain, devices=devices)),
    )


def _with_domain_defaults(
    domain: Domain, new_uuid: Callable[[], str], configuration: Configuration
) -> Domain:
    firmware = domain.firmware or Firmware()
    features = with_feature_defaults(domain.features)
    clock = with_hyperv_timer(domain.clock, features)
    if clock and clock.timer:
        clock = replace(clock, timer=_with_present_timers(clock.timer))
    resources = _with_requests(domain.resources)
    return replace(
        domain,
        machine=Machine(
            type=(domain.machine and domain.machine.type) or configuration.machine_type
        ),
        resources=resources,
        memory=_with_guest_memory(domain.memory, resources),
        cpu=_with_topology(domain.cpu or Cpu(), resources, configuration.cpu_model),
        firmware=firmware if firmware.uuid else replace(firmware, uuid=new_uuid()),
        clock=clock,
        features=features,
    )


def _with_requests(resources: Resources) -> Resources:
    limit = resources.limits.get("cpu")
    if limit is None or "cpu" in resources.requests:
        return resources
    return replace(resources, requests={**resources.requests, "cpu": limit})


def _with_guest_memory(memory: Memory | None, resources: Resources) -> Memory | None:
    if memory is not None and memory.guest is not None:
        return memory
    guest = _requested_memory(memory.hugepages if memory else None, resources)
    return memory if guest is None else replace(memory or Memory(), guest=guest)


def _requested_memory(hugepages: Hugepages | None, resources: Resources) -> Quantity | None:
    for source in (resources.requests, resources.limits):
        if "memory" in source:
            return source["memory"]
    return hugepages.page_size if hugepages else None


def cpu_topology(cpu: Cpu | None, resources: Resources) -> tuple[int, int, int]:
    """Sockets, cores and threads; with none of them given, as many sockets as CPUs are limited or requested.

    An unreadable CPU quantity counts as absent: `validate_vmi` has its message.
    """
    cpu = cpu or Cpu()
    given = (cpu.sockets, cpu.cores, cpu.threads)
    if given != (None, None, None):
        sockets, cores, threads = (1 if n is None else n for n in given)
        return sockets, cores, threads
    for source in (resources.limits, resources.requests):
        if "cpu" in source:
            return _whole_cpus(source["cpu"]), 1, 1
    return 1, 1, 1


def _whole_cpus(quantity: Quantity) -> int:
    try:
        value = parse_quantity(quantity)
    except ValueError:
        return 1
    return max(1, -(-value.numerator // value.denominator))


def _with_topology(cpu: Cpu, resources: Resources, model: str) -> Cpu:
    sockets, cores, threads = cpu_topology(cpu, resources)
    return replace(cpu, sockets=sockets, cores=cores, threads=threads, model=cpu.model or model)


def _with_present_timers(timers: Timers) -> Timers:
    def present(timer: Timer | None) -> Timer | None:
        return timer if timer is None or timer.present is not None else replace(timer, present=True)

    return Timers(
        hpet=present(timers.hpet),
        kvm=present(timers.kvm),
        pit=present(timers.pit),
        rtc=present(timers.rtc),
        hyperv=present(timers.hyperv),
    )


def _with_pod_network(
    spec: VirtualMachineInstanceSpec, configuration: Configuration
) -> VirtualMachineInstanceSpec:
    devices = spec.domain.devices
    if spec.networks or devices.interfaces or devices.autoattach_pod_interface is False:
        return spec
    card = pod_interface(configuration.default_interface)
    devices = replace(devices, interfaces=(card,))
    return replace(
        spec,
        domain=replace(spec.domain, devices=devices),
        networks=(Network(name=card.name, pod=PodNetwork()),),
    )


def _with_pull_policy(volume: Volume) -> Volume:
    disk = volume.container_disk
    if disk is None or disk.image_pull_policy:
        return volume
    return replace(
        volume, container_disk=replace(disk, image_pull_policy=default_pull_policy(disk.image))
    )
