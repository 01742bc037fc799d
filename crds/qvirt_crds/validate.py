"""Semantic refusals: what the types allow and a guest can't have.

Works on specs with and without defaults (`defaults`), so that a message is about what the user wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qvirt_crds.configuration import DEFAULT, Configuration
from qvirt_crds.default_devices import chipset
from qvirt_crds.devices import Devices
from qvirt_crds.errors import Cause
from qvirt_crds.meta import ObjectMeta
from qvirt_crds.rules_access import check_credentials, check_probes
from qvirt_crds.rules_domain import check_domain
from qvirt_crds.rules_network import check_networks
from qvirt_crds.rules_storage import check_storage
from qvirt_crds.rules_values import is_dns_label, is_dns_subdomain, machine_type_of
from qvirt_crds.vm import VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceSpec

_DNS_POLICIES: Final = ("", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")


def validate_vmi(
    vmi: VirtualMachineInstance,
    path_prefix: str = "spec",
    configuration: Configuration = DEFAULT,
) -> tuple[Cause, ...]:
    """Every reason why this instance can't run; empty when it can, as far as its spec tells.

    :param path_prefix: where the instance's spec stands in what the user wrote (``spec.template.spec`` for a VM).
    :param configuration: of the cluster, which may refuse more.
    """
    return validate_spec(vmi.spec, path_prefix, configuration)


def validate_vm(vm: VirtualMachine, configuration: Configuration = DEFAULT) -> tuple[Cause, ...]:
    """Every reason why this VirtualMachine is not acceptable, those of its template included."""
    causes = []
    if vm.spec.running is None and vm.spec.run_strategy is None:
        causes.append(Cause(path="spec.runStrategy", message="RunStrategy must be specified"))
    if vm.spec.running is not None and vm.spec.run_strategy is not None:
        message = "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please use RunStrategy instead"
        causes.append(Cause(path="spec.running", message=message))
    return (*causes, *validate_spec(vm.spec.template.spec, "spec.template.spec", configuration))


def validate_metadata(metadata: ObjectMeta) -> tuple[Cause, ...]:
    """Name and namespace; they become names of files and hosts."""
    causes = []
    if not metadata.name:
        hint = (
            "; generateName is for the API server, which makes a name of it"
            if metadata.generate_name
            else ""
        )
        causes.append(Cause(path="metadata.name", message=f"a name is required{hint}"))
    elif not is_dns_subdomain(metadata.name):
        message = f"{metadata.name!r} is not a DNS-1123 subdomain: lower case letters, digits, '-' and '.', at most 253 characters"
        causes.append(Cause(path="metadata.name", message=message))
    if metadata.namespace and not is_dns_label(metadata.namespace):
        message = f"{metadata.namespace!r} is not a DNS-1123 label"
        causes.append(Cause(path="metadata.namespace", message=message))
    return tuple(causes)


def validate_spec(
    spec: VirtualMachineInstanceSpec, path: str, configuration: Configuration = DEFAULT
) -> tuple[Cause, ...]:
    """`validate_vmi` for a spec alone."""
    machine_type = machine_type_of(spec.domain)
    return (
        *check_domain(spec.domain, f"{path}.domain"),
        *_devices(spec.domain.devices, machine_type, f"{path}.domain.devices"),
        *check_storage(spec, machine_type, path),
        *check_networks(spec, path, permit_bridge=configuration.permit_bridge),
        *_boot_order(spec.domain.devices, f"{path}.domain.devices"),
        *_pod(spec, path),
        *check_credentials(spec, path),
        *check_probes(spec, path),
    )


def _devices(devices: Devices, machine_type: str, path: str) -> Iterator[Cause]:
    if devices.video and devices.autoattach_graphics_device is False:
        message = "Video configuration is not allowed when autoattachGraphicsDevice is set to false"
        yield Cause(path=f"{path}.video", message=message)
    if devices.sound and not devices.sound.name:
        yield Cause(path=f"{path}.sound.name", message="Sound device requires a name field.")
    names: set[str] = set()
    for index, item in enumerate(devices.inputs):
        if item.name in names:
            yield Cause(path=f"{path}.inputs[{index}].name", message=f"{item.name} is there twice")
        names.add(item.name)
    if chipset(machine_type) == "microvm":
        yield from _microvm(devices, path)


def _microvm(devices: Devices, path: str) -> Iterator[Cause]:
    """QEMU's microvm has virtio-mmio and a serial port, nothing on PCI or USB."""
    refused = {
        f"{path}.watchdog": devices.watchdog is not None,
        f"{path}.sound": devices.sound is not None,
        f"{path}.video": devices.video is not None,
        f"{path}.useVirtioTransitional": devices.use_virtio_transitional is True,
    }
    for index, item in enumerate(devices.inputs):
        refused[f"{path}.inputs[{index}].bus"] = item.bus == "usb"
    for index, panic in enumerate(devices.panic_devices):
        refused[f"{path}.panicDevices[{index}].model"] = panic.model == "pvpanic"
    for index, disk in enumerate(devices.disks):
        refused[f"{path}.disks[{index}].disk.pciAddress"] = bool(
            disk.disk and disk.disk.pci_address
        )
    for index, card in enumerate(devices.interfaces):
        refused[f"{path}.interfaces[{index}].model"] = card.model not in ("", "virtio")
        refused[f"{path}.interfaces[{index}].pciAddress"] = bool(card.pci_address)
        refused[f"{path}.interfaces[{index}].acpiIndex"] = card.acpi_index != 0
    for where, there in refused.items():
        if there:
            message = (
                "the machine type microvm has only virtio devices, without PCI and USB; use q35"
            )
            yield Cause(path=where, message=message)


def _boot_order(devices: Devices, path: str) -> Iterator[Cause]:
    orders = [(f"{path}.disks[{i}]", d.boot_order) for i, d in enumerate(devices.disks)]
    orders += [(f"{path}.interfaces[{i}]", n.boot_order) for i, n in enumerate(devices.interfaces)]
    seen: set[int] = set()
    for where, order in orders:
        if order is None:
            continue
        inner = f"{where}.bootOrder"
        if order < 1:
            message = f"{where} must have a boot order > 0, if supplied"
            yield Cause(path=inner, message=message)
        elif order in seen:
            message = f"Boot order for {where} already set for a different device."
            yield Cause(path=inner, message=message)
        seen.add(order)


def _pod(spec: VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    if spec.hostname and not is_dns_label(spec.hostname):
        message = f"{path}.hostname does not conform to the kubernetes DNS_LABEL rules : {spec.hostname!r}"
        yield Cause(path=f"{path}.hostname", message=message)
    if spec.subdomain and not is_dns_subdomain(spec.subdomain):
        message = f"{path}.subdomain does not conform to the kubernetes DNS_SUBDOMAIN rules : {spec.subdomain!r}"
        yield Cause(path=f"{path}.subdomain", message=message)
    grace = spec.termination_grace_period_seconds
    if grace is not None and grace < 0:
        message = f"must be 0 or more, found {grace}"
        yield Cause(path=f"{path}.terminationGracePeriodSeconds", message=message)
    if spec.dns_policy not in _DNS_POLICIES:
        message = f"DNSPolicy: {spec.dns_policy} is not supported, valid values: {list(_DNS_POLICIES[1:])}"
        yield Cause(path=f"{path}.dnsPolicy", message=message)
    if spec.dns_policy == "None" and not spec.dns_config:
        message = "must provide `dnsConfig` when `dnsPolicy` is None"
        yield Cause(path=f"{path}.dnsConfig", message=message)
    if spec.start_strategy == "Paused" and spec.liveness_probe is not None:
        message = f"either {path}.startStrategy or {path}.livenessProbe should be provided.Pausing VMI with LivenessProbe is not supported"
        yield Cause(path=f"{path}.startStrategy", message=message)
