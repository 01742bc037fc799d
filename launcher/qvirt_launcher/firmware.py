"""How the guest starts and what it reads about itself: SeaBIOS or OVMF, direct kernel boot, SMBIOS."""

from __future__ import annotations

import uuid
from typing import Final

from qvirt_crds.domain import Bootloader, Domain, Efi, FeatureState
from qvirt_crds.domain import Firmware as FirmwareSpec
from qvirt_crds.model import Model
from qvirt_crds.report import KernelFiles
from qvirt_launcher.arguments import Options, Properties, refused
from qvirt_launcher.backing import CopyFile
from qvirt_launcher.board import Family, family
from qvirt_launcher.errors import HostError
from qvirt_launcher.facts import FirmwareFiles, HostFacts

#: KubeVirt's own words, because guests look for them: systemd and cloud-init recognise the platform by them.
_MANUFACTURER: Final = "KubeVirt"
_PRODUCT: Final = "None"
_FAMILY: Final = "KubeVirt"
_CODE: Final = "firmware"
_VARIABLES: Final = "efivars"
_VARIABLES_FILE: Final = "efivars.fd"
_BOOTLOADER: Final = "spec.domain.firmware.bootloader"


class Firmware(Model, frozen=True, kw_only=True):
    """Firmware as options of several kinds."""

    #: What ``-machine`` must say about it.
    board: Options = {}
    blockdevs: tuple[Properties, ...] = ()
    globals: tuple[Options, ...] = ()
    #: To be made before QEMU starts.
    steps: tuple[CopyFile, ...] = ()
    kernel: str = ""
    initrd: str = ""
    kernel_args: str = ""


def plan_firmware(domain: Domain, host: HostFacts) -> Firmware:
    """:raise SpecError: the machine type can't do what is asked.
    :raise HostError: OVMF or the kernel's files are missing here.
    """
    spec = domain.firmware or FirmwareSpec()
    bootloader = spec.bootloader or Bootloader()
    kernel, arguments = _kernel(spec, host)
    if bootloader.efi is None:
        serial = bootloader.bios is not None and bootloader.bios.use_serial
        return Firmware(
            # SeaBIOS speaks on the serial port when the board has no graphics (its etc/sercon-port).
            board={"graphics": False} if serial else {},
            kernel=kernel.kernel,
            initrd=kernel.initrd,
            kernel_args=arguments,
        )
    secure = bootloader.efi.secure_boot is not False
    board = family(domain)
    _check_efi(bootloader.efi, domain, board, secure)
    files = _ovmf(host, secure)
    copy = CopyFile(path=f"{host.run_dir}/{_VARIABLES_FILE}", source=files.variables)
    return Firmware(
        board={"pflash0": _CODE, "pflash1": _VARIABLES},
        blockdevs=(
            *_flash(_CODE, files.code, read_only=True),
            *_flash(_VARIABLES, copy.path, read_only=False),
        ),
        globals=_secure_globals() if secure else (),
        steps=(copy,),
        kernel=kernel.kernel,
        initrd=kernel.initrd,
        kernel_args=arguments,
    )


def _check_efi(efi: Efi, domain: Domain, board: Family, secure: bool) -> None:
    if board == "microvm":
        raise refused(f"{_BOOTLOADER}.efi", "machine type microvm has no EFI firmware")
    if efi.persistent:
        raise refused(f"{_BOOTLOADER}.efi.persistent", "is not implemented yet")
    if not secure:
        return
    if board != "q35":
        raise refused(f"{_BOOTLOADER}.efi.secureBoot", "needs machine type q35")
    smm = domain.features.smm if domain.features else None
    if (smm or FeatureState(enabled=False)).enabled is False:
        raise refused(
            _BOOTLOADER + ".efi.secureBoot",
            "needs SMM: set spec.domain.features.smm.enabled to true, or secureBoot to false",
        )


def _ovmf(host: HostFacts, secure: bool) -> FirmwareFiles:
    files = host.efi_secure if secure else host.efi
    if files is None:
        raise HostError(
            f"OVMF firmware {'with' if secure else 'without'} Secure Boot is missing on this machine, "
            f"and {_BOOTLOADER}.efi needs it: apt install ovmf"
        )
    return files


def _flash(node: str, path: str, *, read_only: bool) -> tuple[Properties, Properties]:
    file: Properties = {
        "driver": "file",
        "node-name": f"{node}-file",
        "filename": path,
        "read-only": read_only,
    }
    return file, {
        "driver": "raw",
        "node-name": node,
        "file": f"{node}-file",
        "read-only": read_only,
    }


def _secure_globals() -> tuple[Options, ...]:
    # Variables may be written from SMM only, and S3 would let the guest go around that (edk2: OvmfPkg/README).
    return (
        {"driver": "cfi.pflash01", "property": "secure", "value": True},
        {"driver": "ICH9-LPC", "property": "disable_s3", "value": 1},
    )


def _kernel(spec: FirmwareSpec, host: HostFacts) -> tuple[KernelFiles, str]:
    boot = spec.kernel_boot
    path = "spec.domain.firmware.kernelBoot"
    if boot is None or boot.container is None:
        if boot and boot.kernel_args:
            raise refused(f"{path}.kernelArgs", "needs a kernel: set container.kernelPath")
        return KernelFiles(), ""
    found = host.kernel or KernelFiles()
    container = boot.container
    if container.kernel_path and not found.kernel:
        raise HostError(f"{path}: the kernel of {container.image} was not fetched")
    if container.initrd_path and not found.initrd:
        raise HostError(f"{path}: the initrd of {container.image} was not fetched")
    if boot.kernel_args and not found.kernel:
        raise refused(f"{path}.kernelArgs", "needs a kernel: set container.kernelPath")
    return found, boot.kernel_args


def machine_uuid(domain: Domain) -> str:
    """``-uuid``, canonical.

    :raise SpecError: missing or not a UUID.
    """
    text = domain.firmware.uuid if domain.firmware else ""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise refused("spec.domain.firmware.uuid", f"{text!r} is not a UUID") from None


def smbios(domain: Domain) -> tuple[Options, ...]:
    """``-smbios``: type 1 (system) always, type 3 (chassis) when the spec has one. The UUID comes from ``-uuid``."""
    system: Options = {
        "type": 1,
        "manufacturer": _MANUFACTURER,
        "product": _PRODUCT,
        "family": _FAMILY,
        "serial": (domain.firmware.serial if domain.firmware else "") or None,
    }
    chassis = domain.chassis
    if chassis is None:
        return (system,)
    enclosure: Options = {
        "type": 3,
        "manufacturer": chassis.manufacturer or None,
        "version": chassis.version or None,
        "serial": chassis.serial or None,
        "asset": chassis.asset or None,
        "sku": chassis.sku or None,
    }
    return (system, enclosure)
