"""The KubeVirt object -> `Configuration`, with every default filled in, and a cause for each setting that is not obeyed (pure).

virt-controller, virt-api and whoever else needs a setting read the object (``kubevirts`` of the installation's namespace)
and turn it into the same frozen values here. No setting can break an installation: one that makes no sense is reported
and its default holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, Literal

import msgspec

from qvirt_crds import shape
from qvirt_crds.default_devices import MACHINE_TYPES
from qvirt_crds.errors import Cause
from qvirt_crds.kubevirt import KubeVirt, KubeVirtConfiguration
from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model
from qvirt_crds.names import API_V1
from qvirt_crds.vm import EvictionStrategy

#: Features that can be turned on and off here.
IMAGE_VOLUME: Final = "ImageVolume"
#: Features of KubeVirt's that qvirt always has.
ALWAYS_ON: Final = ("KubevirtSeccompProfile", "NonRoot", "PanicDevices", "PasstBinding", "VideoConfig")  # fmt: skip

_CONFIGURATION: Final = "spec.configuration"
_DEVELOPER: Final = f"{_CONFIGURATION}.developerConfiguration"
_RATIO: Final = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4})?")
_NOT_YET: Final = "KubeVirt has this setting; qvirt does not implement it and goes on without"
#: Settings that qvirt has no use for but that say what is so anyway.
_TRUE_ANYWAY: Final[dict[str, object]] = {
    "imagePullPolicy": "IfNotPresent",
    "uninstallStrategy": "RemoveWorkloads",
}
#: An empty object that means something.
_MEANT: Final = "disableSerialConsoleLog"


class Configuration(Model, frozen=True, kw_only=True):
    """The settings in force."""

    #: Guests are emulated, no KVM is asked for.
    use_emulation: bool = False
    #: containerDisks are OCI image volumes instead of sidecars.
    image_volumes: bool = False
    cpu_model: str = "host-model"
    machine_type: str = "q35"
    default_interface: Literal["bridge", "masquerade"] = "bridge"
    #: Whether the bridge binding may be used on the pod network.
    permit_bridge: bool = True
    eviction_strategy: EvictionStrategy = "None"
    #: Percent.
    memory_overcommit: int = 100
    cpu_allocation_ratio: int = 10
    #: Factor on a launcher pod's overhead.
    overhead_ratio: Fraction = Fraction(1)
    #: Whether guests' serial consoles are logged in their pods, where a VM says nothing of it.
    log_serial_console: bool = True
    #: Of the launcher's image; empty: as virt-controller's flag says.
    image_pull_policy: str = ""


DEFAULT: Final = Configuration()


class Settled(Model, frozen=True, kw_only=True):
    """What holds, and what of the object does not."""

    configuration: Configuration = DEFAULT
    ignored: tuple[Cause, ...] = ()


def settle(kubevirt: JsonObject | None) -> Settled:
    """The settings of a KubeVirt object as the API server has it; None: there is none."""
    if kubevirt is None:
        return Settled()
    said = _said(kubevirt.get("spec") or {})
    if isinstance(said, dict):
        said = {key: value for key, value in said.items() if _TRUE_ANYWAY.get(key) != value}
    bare = {"apiVersion": API_V1, "kind": "KubeVirt", "metadata": {}, "spec": said}
    clean, causes = shape.check(bare, KubeVirt, {})
    ignored = tuple(map(_in_our_words, causes))
    try:
        spec = msgspec.convert(clean, KubeVirt).spec
    except msgspec.ValidationError:
        # The schema of the CRD refuses wrong types; this object came past it.
        return Settled(ignored=ignored)
    given = spec.configuration or KubeVirtConfiguration()
    return Settled(configuration=_configuration(given), ignored=(*ignored, *_ignored(given)))


def _said(value: object) -> object:
    """Without what says nothing: ``customizeComponents: {}`` is in everybody's KubeVirt object."""
    match value:
        case dict():
            inner = {key: _said(item) for key, item in value.items()}
            return {k: v for k, v in inner.items() if k == _MEANT or v not in ({}, [], "", None)}
        case list():
            return [_said(item) for item in value]
        case _:
            return value


def _in_our_words(cause: Cause) -> Cause:
    if not cause.message.startswith("unknown field"):
        return cause
    return Cause(path=cause.path, message=_NOT_YET)


def _configuration(given: KubeVirtConfiguration) -> Configuration:
    default, developer = DEFAULT, given.developer_configuration
    gates = developer.feature_gates if developer else ()
    disabled = developer.disabled_feature_gates if developer else ()
    network = given.network
    ratio = given.additional_guest_memory_overhead_ratio
    return Configuration(
        use_emulation=developer is not None and developer.use_emulation,
        image_volumes=IMAGE_VOLUME in gates and IMAGE_VOLUME not in disabled,
        cpu_model=given.cpu_model or default.cpu_model,
        machine_type=_machine_type(given) or default.machine_type,
        default_interface=(network and network.default_network_interface)
        or default.default_interface,
        permit_bridge=network is None
        or network.permit_bridge_interface_on_pod_network is not False,
        eviction_strategy=given.eviction_strategy or default.eviction_strategy,
        memory_overcommit=_positive(developer.memory_overcommit if developer else None)
        or default.memory_overcommit,
        cpu_allocation_ratio=_positive(developer.cpu_allocation_ratio if developer else None)
        or default.cpu_allocation_ratio,
        overhead_ratio=Fraction(ratio) if _is_ratio(ratio) else default.overhead_ratio,
        log_serial_console=given.virtual_machine_options is None
        or given.virtual_machine_options.disable_serial_console_log is None,
        image_pull_policy=given.image_pull_policy or default.image_pull_policy,
    )


def _machine_type(given: KubeVirtConfiguration) -> str:
    found = _named_machine_type(given)
    return found if MACHINE_TYPES.fullmatch(found) else ""


def _named_machine_type(given: KubeVirtConfiguration) -> str:
    architectures = given.architecture_configuration
    ours = architectures.amd64 if architectures else None
    return (ours.machine_type if ours else "") or given.machine_type


def _positive(number: int | None) -> int | None:
    return number if number is not None and number > 0 else None


def _is_ratio(text: str) -> bool:
    return _RATIO.fullmatch(text) is not None and Fraction(text) >= 1


def _ignored(given: KubeVirtConfiguration) -> Iterator[Cause]:
    """Settings that we know and that ask for what we can't do."""
    developer = given.developer_configuration
    if developer is not None:
        yield from _gates(developer.feature_gates, developer.disabled_feature_gates)
        for name, number in (
            ("memoryOvercommit", developer.memory_overcommit),
            ("cpuAllocationRatio", developer.cpu_allocation_ratio),
        ):
            if number is not None and number <= 0:
                message = f"must be more than 0, found {number}"
                yield Cause(path=f"{_DEVELOPER}.{name}", message=message)
    machine = _named_machine_type(given)
    if machine and not MACHINE_TYPES.fullmatch(machine):
        message = f"qvirt has no machine type {machine}"
        yield Cause(path=f"{_CONFIGURATION}.machineType", message=message)
    ratio = given.additional_guest_memory_overhead_ratio
    if ratio and not _is_ratio(ratio):
        message = f'must be a number of at least 1 like "1.5", found "{ratio}"'
        yield Cause(path=f"{_CONFIGURATION}.additionalGuestMemoryOverheadRatio", message=message)
    if given.vm_rollout_strategy == "LiveUpdate":
        message = "qvirt changes no running guest: every change waits for a restart, as with Stage"
        yield Cause(path=f"{_CONFIGURATION}.vmRolloutStrategy", message=message)


def _gates(on: tuple[str, ...], off: tuple[str, ...]) -> Iterator[Cause]:
    for index, gate in enumerate(on):
        if gate not in (IMAGE_VOLUME, *ALWAYS_ON):
            message = f"qvirt has no feature gate {gate}"
            yield Cause(path=f"{_DEVELOPER}.featureGates[{index}]", message=message)
    for index, gate in enumerate(off):
        if gate in ALWAYS_ON:
            message = f"{gate} can't be turned off in qvirt"
            yield Cause(path=f"{_DEVELOPER}.disabledFeatureGates[{index}]", message=message)
