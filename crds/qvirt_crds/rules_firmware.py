"""Semantic refusals of firmware, clock and features. Wording is KubeVirt's where its webhook has one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from qvirt_crds.default_devices import chipset
from qvirt_crds.default_features import is_on, needs_of
from qvirt_crds.domain import Clock, Domain, FeatureHyperv, Firmware, KernelBoot, Timers
from qvirt_crds.errors import Cause
from qvirt_crds.rules_values import machine_type_of, not_implemented, printable

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIMEZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
#: CPUID has twelve bytes for it; QEMU's ``-cpu`` has no way to write a comma.
_VENDOR: Final = re.compile(r"[ -+\--~]{1,12}")


def check_firmware(domain: Domain, path: str) -> Iterator[Cause]:
    """SMBIOS identity, boot loader and direct kernel boot."""
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


def check_clock(clock: Clock, path: str) -> Iterator[Cause]:
    """Offset or time zone, and what QEMU's timers can do."""
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


def check_features(domain: Domain, path: str) -> Iterator[Cause]:
    """Hyper-V features and what they need of each other."""
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
